"""How fast the sign-off desk answers with 10,000 open payments, as a browser measures it.

``python -m benchmarks.desk [--tasks 10000]`` prints a table of the lists and ends with 1 when one
of them is slower than its limit. The desk runs in a process of its own, as in ``prepaid up``.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.cookiejar import CookieJar
from statistics import median, quantiles
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, OpenerDirector, Request, build_opener

from sqlalchemy import URL, Engine

from benchmarks import databases, sides
from prepaid_pipeline.billing.payment_matching import match_payments
from prepaid_pipeline.database import queries
from prepaid_pipeline.desk import passwords
from prepaid_pipeline.people import accounts

LIMIT, REQUESTS = 0.3, 30
PORT, PASSWORD = 3955, "a long enough password"
# Search goes through all that is open, for one that is there and for nothing.
LISTS = {
    "overview": "/",
    "payments": "/payments",
    "payments, from the middle": "/payments?after={half}",
    "those that agree": "/payments?show=agree",
    "those that differ": "/payments?show=differ",
    "without a record": "/payments?show=none",
    "overdue": "/payments?show=overdue",
    "search, one found": "/payments?search=Customer+{half}",
    "search, nothing found": "/payments?search=no+such+thing",
    "one payment": "/payments/{half}",
    "decisions": "/history",
    "held plans": "/held",
}


def prepare(engine: Engine, tasks: int) -> None:
    """That many open payments; of a hundred one differs and one has no record."""
    sides.prepare(engine, tasks)
    sides.pipeline(engine, "open_renewals")
    for statement in queries.parse("desk", _RECORDS):
        with engine.begin() as connection:
            statement.execute(connection, {})
    match_payments(engine, sides.CONTEXT)
    accounts.set_password(engine, sides.OFFICER, passwords.hashed(PASSWORD))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")


_RECORDS = """
INSERT INTO prepaid.transactions
    (provider, provider_ref, invoice_number, amount, currency, status, occurred_at)
SELECT 'bank', 'R' || invoice_id, invoice_number,
       total + CASE WHEN invoice_id % 100 = 1 THEN 1 ELSE 0 END, currency, 'Success', issued_on
FROM prepaid.invoices WHERE invoice_id % 100 <> 2 ORDER BY invoice_id;
"""


@contextmanager
def desk(url: URL) -> Iterator[None]:
    """The desk on a database."""
    environ = {
        **os.environ,
        "PREPAID_DATABASE_URL": url.render_as_string(hide_password=False),
        "PREPAID_DESK_PORT": str(PORT),
    }
    process = subprocess.Popen([sys.executable, "-m", "prepaid_pipeline.desk.serve"], env=environ)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def signed_in() -> OpenerDirector:
    """A browser in which the officer is signed in."""
    opener = build_opener(HTTPCookieProcessor(CookieJar()))
    give_up_at = time.monotonic() + 60
    while True:
        try:
            _, page = get(opener, "/sign-in")
            break
        except OSError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.2)
    _, page = get(opener, "/sign-in", {"name": sides.OFFICER, "password": PASSWORD, **hidden(page)})
    assert "What is waiting" in page
    return opener


def get(opener: OpenerDirector, path: str, form: dict[str, str] | None = None) -> tuple[float, str]:
    """Seconds until a page is there whole, and the page; with ``form`` it is sent there."""
    data = None if form is None else urlencode(form).encode()
    started = time.perf_counter()
    with opener.open(Request(f"http://127.0.0.1:{PORT}{path}", data=data), timeout=60) as answer:
        page = answer.read().decode()
    return time.perf_counter() - started, page


def hidden(page: str) -> dict[str, str]:
    """The hidden fields of a page's forms."""
    return dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all lists; 0 if every one of them keeps within the limit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.desk", description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    tasks = parser.parse_args(arguments).tasks
    with databases.embedded_server() as url:
        with databases.connected(url) as engine:
            prepare(engine, tasks)
        with desk(url):
            return measure(signed_in(), tasks)


def measure(opener: OpenerDirector, tasks: int) -> int:
    """Print the table; 1 when a list is over the limit in more than one of twenty requests."""
    print(f"{'list':28} {'median':>8} {'19 of 20':>9} {'KB':>6}   of {tasks:,} open payments")
    slow = []
    for name, path in LISTS.items():
        address = path.format(half=tasks // 2)
        taken, page = zip(*(get(opener, address) for _ in range(REQUESTS)), strict=True)
        high = quantiles(taken, n=20)[-1]
        if high > LIMIT:
            slow.append(name)
        size = len(page[0].encode()) / 1000
        print(f"{name:28} {median(taken) * 1000:5.0f} ms {high * 1000:6.0f} ms {size:6.1f}")
    taken_to_show, page = get(opener, "/payments/confirm?all=yes")
    taken_to_decide, answer = get(opener, "/payments/approve", hidden(page))
    decided = re.search(r"([\d,]+) payments approved", answer)
    assert decided is not None
    print(
        f"{decided[1]} approved in one go: {taken_to_show:.2f} s to count and add up,"
        f" {taken_to_decide:.2f} s to record"
    )
    for name in slow:
        print(f"BROKEN: {name} takes more than {LIMIT * 1000:.0f} ms")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
