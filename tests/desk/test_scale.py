"""10,000 open tasks: every list answers fast, in pages of bounded size.

The promise is 300 ms (benchmarks/desk.py measures it); here other processes take their share.
"""

import re
import time
from collections.abc import Callable

import pytest

from tests.desk.conftest import Browser
from tests.desk.many import payments
from tests.world import World

OPEN, PARKED = 10_000, 2_000
SECONDS = 0.6
LARGEST = 100 * 1024


_PARKED = """
INSERT INTO prepaid.transactions
    (provider, provider_ref, invoice_number, amount, currency, status, occurred_at, customer_ref)
SELECT 'bank', 'lost-' || n, replace(invoice_number, '-', ''), total, currency, 'Success',
       TIMESTAMPTZ '2026-11-02 10:00Z', 'M' || n
FROM generate_series(1, :n) n JOIN prepaid.invoices i ON i.invoice_id = n
"""


@pytest.mark.long
def test_ten_thousand_open_payments(world: World, browser: Callable[..., Browser]) -> None:
    payments(world, OPEN, one_in=500)
    world.sql(_PARKED, n=PARKED)
    world.match()
    finance = browser("finance")
    slow = {}
    for path in (
        "/",
        "/payments",
        "/payments?after=5000",
        "/payments?show=agree",
        "/payments?show=differ",
        "/payments?show=none",
        "/payments?show=overdue",
        "/payments?show=mine",
        "/payments?search=Customer+9999",
        "/payments?search=INV-2026-005000",
        "/payments?search=no+such+thing",
        "/parked",
        "/parked?search=lost-1999",
        "/history",
        "/payments/confirm?task=1&task=2",
    ):
        finance.get(path)
        best = 60.0
        # A few attempts, until one was not disturbed.
        for _ in range(8):
            began = time.perf_counter()
            answer = finance.get(path)
            best = min(best, time.perf_counter() - began)
            assert answer.status_code == 200
            assert len(answer.content) < LARGEST
            if best < SECONDS:
                break
        slow[path] = round(best, 3)
    assert {path: took for path, took in slow.items() if took > SECONDS} == {}

    seen, path = set(), "/payments?show=differ"
    while path:
        page = finance.get(path).text
        seen |= set(re.findall(r'href="/payments/(\d+)"', page))
        following = re.search(r'href="(/payments\?[^"]*after=\d+)"', page)
        path = following.group(1).replace("&amp;", "&") if following else ""
    assert len(seen) == OPEN // 500
