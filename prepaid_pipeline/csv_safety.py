"""What spreadsheets make of text that was never meant to be a formula."""

# In full width too.
_FORMULA = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"


def harmless(text: str) -> str:
    """The text, with an apostrophe before what a spreadsheet would take for a formula.

    As OWASP's page on CSV injection lists them: = + - @, tab and line breaks, also in full width.
    """
    return f"'{text}" if text[:1] and text[0] in _FORMULA else text
