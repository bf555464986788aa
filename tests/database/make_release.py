"""A backup of a small business, made by the program of a release, for the tests of upgrades.

``python -m tests.database.make_release PREPAID NAME``: PREPAID is that release's command, NAME its
migration, by which the files are called. Nothing but commands is used, so that any release can be
asked. Its database is an embedded server in a temporary directory.

The business ends on LAST_DAY with a plan in every state that an upgrade may find it in:

S-ACTIVE     paid, approved, activated, its quality check passed; it was changed to another price
S-OPEN       invoiced on the last day, nobody has paid
S-MATCHED    paid, and finance has not decided
S-APPROVED   paid and approved on the last day, not yet activated
S-FIRST      above the limit: one of two people has approved
S-PARKED     the payment has the wrong amount
S-FAILED     the payment failed
S-REJECTED   finance rejected the payment: held
S-HELD       no address to send the confirmation to: held when it was opened
S-UNPAID     nobody paid: reminded, then cancelled and the invoice void
S-LEFT       activated, then ended at once with a credit note: a refund is to be paid
S-BACK       activated, then the payment was charged back
S-REISSUED   its invoice was voided and issued again
S-CHANGE     activated; a change of plan waits for its payment
S-ERASED     its customer was erased
S-BOUGHT     a purchase without history, invoiced on the last day, with a discount and add-ons
"""

import csv
import json
import lzma
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from prepaid_pipeline.operations.backup.manifest import beside

FILES = Path(__file__).parent / "files"
LAST_DAY = date(2026, 11, 16)
PAID = (
    "ACTIVE",
    "MATCHED",
    "FIRST",
    "REJECTED",
    "LEFT",
    "BACK",
    "REISSUED",
    "CHANGE",
)
SETTINGS = {
    "PREPAID_SECOND_APPROVAL_ABOVE": "USD:200",
    "PREPAID_REMINDER_DAYS": "3",
    "PREPAID_PAYMENT_DAYS": "10",
    "PREPAID_REPORTING_CURRENCY": "EUR",
}
_OPENED = date(2026, 11, 2)


@dataclass
class Release:
    """The command of a release, and the directory that it works in."""

    command: str
    home: Path

    def run(self, *arguments: object, typed: str | None = None) -> str:
        """What the command prints. It must succeed."""
        done = subprocess.run(
            [self.command, *map(str, arguments)],
            env=os.environ | SETTINGS | {"PREPAID_HOME": str(self.home)},
            input=typed,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"prepaid {arguments}: {done.stdout}{done.stderr}")
        return done.stdout

    def read(self, *arguments: object) -> list[dict[str, Any]]:
        """What the command prints as JSON."""
        found = json.loads(self.run(*arguments, "--json"))
        assert isinstance(found, list)
        return found

    def bring(self, day: date, **files: list[dict[str, object]]) -> None:
        """Import files of these rows."""
        with tempfile.TemporaryDirectory() as folder:
            for name, rows in files.items():
                with (Path(folder) / f"{name}.csv").open("w", newline="") as file:
                    columns = list(dict.fromkeys(key for row in rows for key in row))
                    writer = csv.DictWriter(file, columns)
                    writer.writeheader()
                    writer.writerows(rows)
            self.run("import", folder, "--as-of", day)

    def invoices(self) -> dict[str, dict[str, Any]]:
        """The newest open or paid invoice of each customer."""
        found = self.read("invoices", "list", "--status", "all")
        return {row["customer_ref"][2:]: row for row in found if row["status"] != "Void"}

    def tasks(self, kind: str) -> dict[str, int]:
        """The open task of each customer."""
        listed = self.read("tasks", "list", "--kind", kind)
        return {row["customer_ref"][2:]: row["task_id"] for row in listed}

    def paid(self, day: date, **records: dict[str, object]) -> None:
        """A provider's record for the invoice of each customer; as asked but for what is given."""
        invoices = self.invoices()
        self.bring(
            day,
            transactions=[
                {
                    "provider": "bank",
                    "provider_ref": f"{day}-{name}",
                    "invoice_number": invoices[name]["invoice_number"],
                    "amount": invoices[name]["payable"],
                    "currency": "USD",
                    "status": "Success",
                    "occurred_at": f"{day}T10:00:00",
                    "customer_ref": f"C-{name}",
                }
                | changes
                for name, changes in records.items()
            ],
        )


def business(release: Release) -> None:
    """Two weeks, up to LAST_DAY."""
    release.run("migrate")
    release.bring(_OPENED, **_catalogue(), **_customers())
    for name, team in (("finn", "finance"), ("fay", "finance"), ("cleo", "customer_success")):
        release.run("user", "add", name, "--team", team, "--email", f"{name}@example.com")
    release.run("user", "password", "finn", "--stdin", typed="a long enough password\n")
    release.run("drain", "--as-of", _OPENED)
    _first_payments(release)
    _decisions(release)
    day = date(2026, 11, 9)
    _changes(release, day)
    release.run("drain", "--as-of", day)
    release.run("backfill", "2026-10", "2026-10", "--as-of", day)
    release.run("audit", "anchor", "--as-of", day)
    release.run("drain", "--as-of", date(2026, 11, 13))
    _last_day(release)
    release.run("audit", "seal")


def _catalogue() -> dict[str, list[dict[str, object]]]:
    return {
        "plans": [
            {
                "plan_code": code,
                "name": code.title(),
                "term": "P1M",
                "currency": "USD",
                "price": price,
            }
            for code, price in (("basic", "10.00"), ("pro", "25.00"), ("team", "300.00"))
        ],
        "addons": [
            {
                "addon_code": code,
                "name": code.title(),
                "term": "P1M",
                "currency": "USD",
                "price": price,
                "recurring": recurring,
            }
            for code, price, recurring in (("care", "2.00", "true"), ("setup", "5.00", "false"))
        ],
        "tax_rates": [
            {"country": "US", "tax_class": "standard", "rate": "0.0725", "valid_from": "2020-01-01"}
        ],
        "exchange_rates": [{"month": "2026-10", "currency": "USD", "rate": "0.9"}],
    }


def _customers() -> dict[str, list[dict[str, object]]]:
    """One customer and subscription of each name; all but S-BOUGHT and S-ERASED end on 2 November."""
    renewed = (*PAID, "PARKED", "FAILED", "HELD", "UNPAID")
    return {
        "customers": [
            {
                "customer_ref": f"C-{name}",
                "name": f"Customer {name.title()}",
                "email": "" if name == "HELD" else f"{name.lower()}@example.com",
                "country": "US",
                "currency": "USD",
                "tax_exempt": "false",
                "tax_exempt_reason": "",
            }
            for name in (*renewed, "ERASED", "OPEN", "APPROVED", "BOUGHT")
        ],
        "subscriptions": [
            {
                "subscription_ref": f"S-{name}",
                "customer_ref": f"C-{name}",
                "plan_code": "team" if name == "FIRST" else "basic",
                "started_on": "2026-10-02",
                "auto_renew": str(name != "ERASED").lower(),
                "price": "",
                "addons": "care" if name in ("LEFT", "OPEN") else "",
                "quantity": 1,
            }
            for name in (*renewed, "ERASED")
        ]
        + [
            {
                "subscription_ref": f"S-{name}",
                "customer_ref": f"C-{name}",
                "plan_code": "basic",
                "started_on": "2026-10-16",
                "auto_renew": "true",
                "price": "",
                "addons": "",
                "quantity": 2,
            }
            for name in ("OPEN", "APPROVED")
        ],
        "discounts": [
            {
                "subscription_ref": "S-ACTIVE",
                "discount_code": "loyal",
                "name": "Loyal",
                "percent": "10",
                "amount": "",
                "terms": "3",
                "starts_on": "",
            },
        ],
        "service_plans": [
            {
                "subscription_ref": f"S-{name}",
                "start_date": "2026-10-02",
                "end_date": "2026-11-02",
                "price": "300.00" if name == "FIRST" else "10.00",
                "status": "Active",
            }
            for name in (*renewed, "ERASED")
        ]
        + [
            {
                "subscription_ref": f"S-{name}",
                "start_date": "2026-10-16",
                "end_date": "2026-11-16",
                "price": "20.00",
                "status": "Active",
            }
            for name in ("OPEN", "APPROVED")
        ],
    }


def _first_payments(release: Release) -> None:
    day = date(2026, 11, 3)
    release.run(
        "invoices",
        "reissue",
        release.invoices()["REISSUED"]["invoice_number"],
        "--as",
        "finn",
        "--note",
        "wrong address",
        "--as-of",
        day,
    )
    release.run("drain", "--as-of", day)
    paid: dict[str, dict[str, object]] = {name: {} for name in PAID}
    paid |= {"PARKED": {"amount": "9.99"}, "FAILED": {"status": "Failed"}}
    release.paid(day, **paid)
    release.run("drain", "--as-of", day)


def _decisions(release: Release) -> None:
    tasks = release.tasks("payment_verification")
    approved = [tasks[name] for name in ("ACTIVE", "LEFT", "BACK", "CHANGE", "REISSUED", "FIRST")]
    release.run("tasks", "approve", *approved, "--as", "fay")
    release.run("tasks", "reject", tasks["REJECTED"], "--as", "fay", "--note", "another name")
    release.run("drain", "--as-of", date(2026, 11, 4))
    checks = release.tasks("quality_check")
    release.run("tasks", "approve", checks["ACTIVE"], "--as", "cleo")
    release.run("tasks", "reject", checks["CHANGE"], "--as", "cleo", "--note", "login refused")


def _changes(release: Release, day: date) -> None:
    by = ("--as", "cleo", "--note", "as the customer asked", "--as-of", day)
    release.run("plans", "cancel", "S-LEFT", "--at-once", *by)
    release.run("plans", "change", "S-CHANGE", "--to", "pro", *by)
    release.run("plans", "change", "S-ACTIVE", "--to", "pro", "--at-renewal", *by)
    release.paid(day, BACK={"provider_ref": "2026-11-03-BACK", "status": "Chargeback"})
    release.run(
        "customers",
        "erase",
        "C-ERASED",
        "--as",
        "cleo",
        "--reason",
        "asked on 9 November",
        "--as-of",
        day,
    )


def _last_day(release: Release) -> None:
    release.bring(
        LAST_DAY,
        subscriptions=[
            {
                "subscription_ref": "S-BOUGHT",
                "customer_ref": "C-BOUGHT",
                "plan_code": "pro",
                "started_on": LAST_DAY,
                "auto_renew": "true",
                "price": "",
                "addons": "care*2;setup",
                "quantity": 3,
            },
        ],
        discounts=[
            {
                "subscription_ref": "S-BOUGHT",
                "discount_code": "start",
                "name": "Start",
                "percent": "",
                "amount": "5.00",
                "terms": "1",
                "starts_on": "",
            },
        ],
    )
    release.run("drain", "--as-of", LAST_DAY)
    release.paid(LAST_DAY, APPROVED={})
    release.run("drain", "--as-of", LAST_DAY)
    release.run(
        "tasks", "approve", release.tasks("payment_verification")["APPROVED"], "--as", "fay"
    )


def make(command: str, name: str) -> None:
    """Run the business and write its backup, over an older one."""
    with tempfile.TemporaryDirectory(prefix="prepaid-release-") as folder:
        home = Path(folder)
        home.chmod(0o755)  # as root the server runs as another user
        release = Release(command, home / "home")
        try:
            business(release)
            dump = home / f"{name}.dump"
            release.run("backup", "create", dump)
        finally:
            release.run("down")
        (FILES / f"{name}.dump.xz").write_bytes(lzma.compress(dump.read_bytes(), preset=9))
        shutil.copy(beside(dump), FILES)


if __name__ == "__main__":
    make(*sys.argv[1:])
