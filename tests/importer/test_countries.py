"""Country codes against CLDR's list, which comes with Babel."""

from babel import Locale

from prepaid_pipeline.importer.countries import COUNTRIES

# What CLDR has besides: groups, islands reserved exceptionally, codes for tests, unknown.
NO_COUNTRIES = "AC CP CQ DG EA EU EZ IC QO TA UN XA XB ZZ"


def test_codes_are_all_those_of_cldr_that_are_countries() -> None:
    territories = {code for code in Locale("en").territories if len(code) == 2}
    assert territories - set(NO_COUNTRIES.split()) == COUNTRIES
