"""docs/money.md: every worked example of its table goes through the real steps."""

import re
from decimal import Decimal
from pathlib import Path

import pytest

from tests.world import World

TEXT = Path("docs/money.md").read_text(encoding="utf-8")
HEADER = (
    "what",
    "currency",
    "lines",
    "discounts",
    "net",
    "tax",
    "total",
    "recurring",
    "net of the lines",
    "tax of the lines",
)
LINE = re.compile(
    r"(?:(?P<quantity>\d+) × )?(?P<price>[\d.]+)(?P<once> once)?(?P<incl> incl)?"
    r" (?:exempt|(?:at )?(?P<rate>[\d.]+) %)"
)
DISCOUNT = re.compile(r"(?P<number>[\d.]+)(?P<percent> %)?(?: for (?P<terms>\d+))?")


def table() -> list[dict[str, str]]:
    section = TEXT.split("## Worked examples")[1]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("|")
    ]
    assert tuple(rows[0]) == HEADER
    return [dict(zip(HEADER, row, strict=True)) for row in rows[2:]]


EXAMPLES = table()


def parts(cell: str) -> list[str]:
    return [part.strip() for part in cell.split(";") if part.strip()]


def matched(pattern: re.Pattern[str], text: str) -> dict[str, str | None]:
    found = pattern.fullmatch(text)
    assert found, f"{text!r} is not written as the page says"
    return found.groupdict()


def buy(world: World, example: dict[str, str], rates: set[str]) -> int:
    """A purchase with these lines and discounts; the subscription's id."""
    currency = example["currency"]
    lines = [matched(LINE, line) for line in parts(example["lines"])]
    for rate in {line["rate"] for line in lines if line["rate"]} - rates:
        rates.add(rate)
        world.tax_rate(str(Decimal(rate) / 100), tax_class=f"rate {rate}")
    exempt = "exempt" in example["lines"]
    assert exempt is all(line["rate"] is None for line in lines)
    first, *others = lines
    plan = world.plan(
        first["price"],
        currency=currency,
        tax_class=f"rate {first['rate']}",
        includes_tax=bool(first["incl"]),
    )
    addons: list[int] = []
    for line in others:
        addon = world.addon(
            line["price"],
            currency=currency,
            tax_class=f"rate {line['rate']}",
            recurring=not line["once"],
            includes_tax=bool(line["incl"]),
        )
        addons += [addon] * int(line["quantity"] or 1)
    subscription = world.subscription(
        world.customer(currency=currency, tax_exempt=exempt),
        plan,
        addons=tuple(addons),
        quantity=int(first["quantity"] or 1),
    )
    for part in parts(example["discounts"]):
        discount = matched(DISCOUNT, part)
        kind = "percent" if discount["percent"] else "amount"
        terms = int(discount["terms"]) if discount["terms"] else None
        world.discount(subscription, terms=terms, **{kind: discount["number"]})
    return subscription


@pytest.fixture(scope="module")
def bought(module_world: World) -> dict[str, int]:
    """The subscription of each example, invoiced in one batch."""
    rates: set[str] = set()
    found = {example["what"]: buy(module_world, example, rates) for example in EXAMPLES}
    module_world.open()
    assert module_world.rows("SELECT text FROM prepaid.holds") == []
    return found


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["what"])
def test_example(module_world: World, bought: dict[str, int], example: dict[str, str]) -> None:
    subscription = bought[example["what"]]
    (row,) = module_world.rows(
        "SELECT i.net, i.tax, i.total, p.recurring_amount, i.net = p.net_amount,"
        " string_agg(l.net::text, '; ' ORDER BY l.line_number),"
        " string_agg(l.tax::text, '; ' ORDER BY l.line_number)"
        " FROM prepaid.service_plans p JOIN prepaid.invoices i USING (service_plan_id)"
        " JOIN prepaid.invoice_lines l USING (invoice_id) WHERE p.subscription_id = :s"
        " GROUP BY i.invoice_id, p.service_plan_id",
        s=subscription,
    )
    *amounts, agrees, nets, taxes = row
    assert [str(amount) for amount in amounts] == [
        example[name] for name in ("net", "tax", "total", "recurring")
    ]
    assert (nets, taxes) == (example["net of the lines"], example["tax of the lines"])
    assert agrees


def test_the_examples_have_names_of_their_own() -> None:
    assert len({example["what"] for example in EXAMPLES}) == len(EXAMPLES) >= 30
