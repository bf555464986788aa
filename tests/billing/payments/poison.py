"""Records as no provider should write them, and as the columns take them nevertheless."""

from dataclasses import dataclass
from itertools import chain

from sqlalchemy import text

from tests.world import World

# Beyond what readers can bear: they stand beside the record as text.
AMOUNTS = (
    "NaN",
    "Infinity",
    "-Infinity",
    "9e131071",
    "-9e131071",
    "1e15",
    "1e-16383",
    "0.1234567890123456",
)
TIMES = (
    "infinity",
    "-infinity",
    "4713-01-01 00:00+00 BC",
    "0001-12-31 23:00+00 BC",
    "0001-12-31 23:59+00",
    "9999-01-01 00:00+00",
    "10000-01-01 00:00+00",
    "294276-12-31 23:59+00",
)
# What columns of text take.
TEXTS = (
    "",
    " ",
    "x" * 20_000,
    "\x01\x1b[31m\x7f\x85\u2028\ufffe",
    "\u202egnp\u202c",
    "=cmd|' /C calc'!A1",
    "100% %s %(x)s {0} :name \\ \" ' ; -- $$ <script>",
    "\U0001f4b8" * 50,
    "line\r\nline\ttab",
)
STATUSES = (
    "Success",
    "Pending",
    "Failed",
    "Refunded",
    "Chargeback",
    "ChargebackReversed",
    "Unfinished",
    "",
    None,
)
_LAND = text(
    "INSERT INTO prepaid.transactions (provider, provider_ref, invoice_number, amount, currency,"
    " status, occurred_at, customer_ref) VALUES (:provider, :provider_ref, :invoice_number,"
    " CAST(:amount AS numeric), :currency, :status, CAST(:occurred_at AS timestamptz),"
    " :customer_ref) RETURNING transaction_id"
)


@dataclass(frozen=True)
class Usual:
    """A record that would pay the invoice, of which something is changed."""

    invoice_number: str
    customer_ref: str

    def but(self, **changes: str | None) -> dict[str, str | None]:
        return {
            "provider": "bank",
            "provider_ref": "p1",
            "invoice_number": self.invoice_number,
            "amount": "10.73",
            "currency": "USD",
            "status": "Success",
            "occurred_at": "2026-11-02T10:00Z",
            "customer_ref": self.customer_ref,
            **changes,
        }


def records(usual: Usual) -> list[dict[str, str | None]]:
    """Each amount, time and text, with each status; most are about the same payment and invoice."""
    odd = chain(
        ({"amount": amount} for amount in AMOUNTS),
        ({"occurred_at": time} for time in TIMES),
        ({"amount": "NaN", "occurred_at": "infinity"},),
    )
    varied = [usual.but(status=status, **change) for change in odd for status in STATUSES]
    names = ("provider", "provider_ref", "invoice_number", "currency", "status", "customer_ref")
    texts = [usual.but(**{name: value}) for name in names for value in (*TEXTS, None)]
    everywhere = [usual.but(**dict.fromkeys(names, value)) for value in (*TEXTS, None)]
    return [*varied, *texts, *everywhere]


def land(world: World, rows: list[dict[str, str | None]]) -> int:
    """How many landed; identical ones are dropped."""
    with world.engine.begin() as connection:
        return sum(connection.execute(_LAND, row).scalar() is not None for row in rows)
