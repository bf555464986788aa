"""Each thing that can be wrong with a set-up is found and named, with what to do."""

import json
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import pytest
from sqlalchemy import URL, Engine, text

from prepaid_pipeline.database import connections, migrations
from prepaid_pipeline.operations.service import doctor
from prepaid_pipeline.people import accounts, decisions, entry
from prepaid_pipeline.settings.load import Settings
from tests.mail.conftest import Mailbox, free_port, mailbox
from tests.operations.service.conftest import Command
from tests.world import World

__all__ = ["mailbox"]


@pytest.fixture
def findings(
    prepaid: Command, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, tuple[bool, str]]]:
    """What `prepaid doctor --json` says, without loading the code location (it takes seconds)."""

    def run(load_code: bool = False, **settings: str) -> dict[str, tuple[bool, str]]:
        with monkeypatch.context() as patch:
            if not load_code:
                patch.setattr(doctor, "_code_location", lambda _: "not tried")
            # The tests' server need not survive a crash of the machine: test_durability.py.
            patch.setitem(doctor._DATABASE_CHECKS, "durability", lambda _: "not checked")
            code, output, _ = prepaid("doctor", "--json", **settings)
        found = {row["check"]: (row["ok"], row["text"]) for row in json.loads(output)}
        assert code == (0 if all(ok for ok, _ in found.values()) else 1)
        return found

    return run


Findings = Callable[..., dict[str, tuple[bool, str]]]


@pytest.fixture(autouse=True)
def closed(engine: Engine) -> None:
    """As 'prepaid migrate' leaves it; the tests' databases are copies, which have no rights."""
    entry.let_people_in(engine)


def _wrong(found: dict[str, tuple[bool, str]]) -> dict[str, str]:
    return {check: what for check, (ok, what) in found.items() if not ok}


def test_no_finding_tells_a_password(findings: Findings, database_url: URL) -> None:
    with_password = database_url.set(username="postgres", password="se:cret")
    found = findings(database_url=with_password.render_as_string(hide_password=False))
    assert _wrong(found) == {}
    assert "cret" not in str(found)


def test_for_people(prepaid: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_code_location", lambda _: "not tried")
    monkeypatch.setitem(doctor._DATABASE_CHECKS, "durability", lambda _: "not checked")
    code, output, _ = prepaid("doctor")
    assert code == 0
    assert f"ok     migrations: at {migrations.newest()}, the newest\n" in output


def test_a_code_location_that_does_not_load(
    findings: Findings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text("load_from:\n  - python_module: {module_name: no_such_module}\n")
    monkeypatch.setattr(doctor, "workspace_file", lambda: workspace)
    wrong = _wrong(findings(load_code=True))
    assert list(wrong) == ["code location"]
    assert "no_such_module" in wrong["code location"]


def test_a_setting(findings: Findings) -> None:
    assert _wrong(findings(grace_days="week")) == {
        "settings": "PREPAID_GRACE_DAYS='week': expected a whole number from 0 to 366"
    }


def test_a_time_zone_that_the_database_does_not_have(findings: Findings, prepaid: Command) -> None:
    assert findings()["time zone"] == (True, "the database counts its days in UTC")
    wrong = _wrong(findings(timezone="Europe/Berlin"))
    assert wrong == {
        "time zone": "PREPAID_TIMEZONE is Europe/Berlin, but the database counts its days in UTC."
        " Correct the setting, or run 'prepaid migrate': from then on the database counts in"
        " Europe/Berlin; dates that are already stored do not change."
    }
    assert prepaid("migrate", timezone="Europe/Berlin")[0] == 0
    assert _wrong(findings(timezone="Europe/Berlin")) == {}


def test_whether_a_later_date_is_asked_about(findings: Findings, engine: Engine) -> None:
    assert "no date is asked about" in findings()["business dates"][1]
    with engine.begin() as connection:
        connection.execute(text("UPDATE prepaid.installation SET first_real_day = '2026-11-02'"))
    ok, said = findings()["business dates"]
    assert ok
    assert said.endswith("what cannot be taken back is asked about for a later one")


def test_no_payments_have_come(findings: Findings, engine: Engine) -> None:
    ok, said = findings()["payment records"]
    assert ok
    assert "Recommended: set PREPAID_PAYMENTS_EXPECTED_DAYS" in said
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO prepaid.transactions (provider, received_at)"
                " SELECT 'bank', now() - make_interval(days => n) FROM (VALUES (6), (5)) v (n)"
            )
        )
    assert findings(payments_expected_days="6")["payment records"][0]
    wrong = _wrong(findings(payments_expected_days="4"))["payment records"]
    assert wrong.startswith("no bank file since 20")
    assert "(provider bank). Nobody is reminded or cancelled until one has landed" in wrong


def test_no_database(findings: Findings, database_url: URL) -> None:
    nowhere = database_url.set(database="nowhere").render_as_string(hide_password=False)
    found = findings(database_url=nowhere)
    assert "Check PREPAID_DATABASE_URL" in _wrong(found)["database"]
    assert "migrations" not in found, "what depends on it is not tried"


def test_not_migrated(findings: Findings, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE prepaid.alembic_version"))
    assert "Run 'prepaid migrate'" in _wrong(findings())["migrations"]


def test_an_old_server(findings: Findings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "OLDEST_SERVER", 99)
    assert "99 or newer is needed" in _wrong(findings())["database"]


def test_a_weak_database_user(findings: Findings, engine: Engine, database_url: URL) -> None:
    person = f"weak_{uuid.uuid4().hex[:8]}"
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {person} LOGIN"))
        connection.execute(text(f"GRANT CONNECT ON DATABASE {database_url.database} TO {person}"))
    url = database_url.set(username=person).render_as_string(hide_password=False)
    wrong = _wrong(findings(database_url=url))
    assert "lacks CREATE on the database and CREATEROLE" in wrong["rights"]
    with engine.begin() as connection:
        connection.execute(text(f"ALTER ROLE {person} CREATEROLE"))
        connection.execute(text(f"GRANT CREATE ON DATABASE {database_url.database} TO {person}"))
    teams = "customer_success, engineering, finance, leadership"
    statement = f"GRANT {teams} TO {person} WITH ADMIN OPTION;"
    assert statement in _wrong(findings(database_url=url))["rights"]
    with engine.begin() as connection:
        connection.execute(text(statement))
    assert "rights" not in _wrong(findings(database_url=url))
    with engine.begin() as connection:
        connection.execute(text(f"DROP OWNED BY {person}"))
        connection.execute(text(f"DROP ROLE {person}"))


@pytest.mark.parametrize("hours", [-1, 1])
def test_clocks_that_differ(
    findings: Findings, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    class Elsewhere(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Elsewhere":
            moved = datetime.now(tz) + timedelta(hours=hours)
            return cls.fromtimestamp(moved.timestamp(), tz)

    monkeypatch.setattr(connections, "datetime", Elsewhere)
    assert "differ by 3600 s" in _wrong(findings())["clock"]


def test_a_home_and_reports_that_cannot_be_written(findings: Findings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    found = findings(home=str(tmp_path / "file" / "home"), reports=str(tmp_path / "file" / "r"))
    wrong = _wrong(found)
    assert "Set PREPAID_HOME to a directory" in wrong["home"]
    assert "Set PREPAID_REPORTS to a directory" in wrong["reports"]
    assert "cannot be written" in wrong["mail"]
    assert "dagster storage" in wrong


def test_reports_that_are_no_directory(findings: Findings) -> None:
    wrong = _wrong(findings(reports="s3://bucket/reports"))
    assert "pip install 'prepaid-pipeline[s3]'" in wrong["reports"]


def test_a_mail_server(findings: Findings, mailbox: tuple[Mailbox, str]) -> None:
    found = findings(smtp_url=mailbox[1], mail_from="Prepaid <billing@example.com>")
    assert found["mail"][0]
    assert found["mail"][1].endswith("as billing@example.com")
    nobody = f"smtp://127.0.0.1:{free_port()}"
    assert "Connection refused" in _wrong(findings(smtp_url=nobody))["mail"]
    assert "PREPAID_SMTP_URL cannot be read" in _wrong(findings(smtp_url="mail"))["mail"]
    assert "PREPAID_MAIL_FROM" in _wrong(findings(mail_from="nobody"))["mail"]


def test_a_login_that_is_refused(
    findings: Findings,
    mailbox: tuple[Mailbox, str],
    settings: Settings,
) -> None:
    url = mailbox[1].replace("smtp://", "smtp://ann:wrong@")
    wrong = _wrong(findings(smtp_url=url))["mail"]
    assert "mail server 127.0.0.1" in wrong
    assert "wrong@" not in wrong


@pytest.mark.parametrize("free", ["100000000", "1000000000"])
def test_disks_that_are_nearly_full(findings: Findings, free: str) -> None:
    wrong = _wrong(findings(free_mb=free))
    assert sorted(wrong) == ["database's disk", "disks"]
    assert "The disk of PREPAID_HOME" in wrong["disks"]
    assert f"MB left, less than PREPAID_FREE_MB ({free})" in wrong["disks"]
    assert "The disk of the database's data" in wrong["database's disk"]


def test_up_refuses_what_could_lose_something(prepaid: Command) -> None:
    code, _, errors = prepaid("up", free_mb="1000000000", port=str(free_port()))
    assert code == 1
    assert "less than PREPAID_FREE_MB" in errors or "is off: a crash of the server" in errors


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("log_format", "xml", "PREPAID_LOG_FORMAT='xml': expected text or json"),
        ("metrics_port", "no", "PREPAID_METRICS_PORT='no': expected a whole number from 1 to"),
        ("alert_webhook", "hooks/se-cret", "PREPAID_ALERT_WEBHOOK cannot be read: expected a URL"),
        ("keep_runs_days", "0", "PREPAID_KEEP_RUNS_DAYS='0': expected a whole number from 1"),
    ],
)
def test_settings_of_operations(findings: Findings, name: str, value: str, expected: str) -> None:
    (said,) = _wrong(findings(**{name: value})).values()
    assert said.startswith(expected)
    assert "se-cret" not in said


def test_who_may_decide(findings: Findings, engine: Engine) -> None:
    """Where four eyes leave nobody, the team is named; with one more person all is well."""
    world = World(engine)
    world.tax_rate("0.0725")
    world.due_renewal()
    (plan,) = world.open()
    world.officer()
    assert findings()["decisions"] == (True, "somebody may decide every open task")
    world.sql(
        "INSERT INTO prepaid.desk_accounts AS d (person, disabled)"
        " SELECT DISTINCT m.person, true FROM prepaid.team_members m"
        " ON CONFLICT (person) DO UPDATE SET disabled = true"
    )
    assert findings()["decisions"] == (
        False,
        f"finance: nobody may decide 1 open task (such as task {world.task(plan)}), because the team"
        " has nobody. Add somebody: prepaid user add NAME --team finance",
    )
    one, other = (f"doctor_{uuid.uuid4().hex[:8]}" for _ in range(2))
    accounts.add(engine, one, "finance")
    assert findings()["decisions"][0]
    spare = world.record(None, "10.73") or 0
    world.match()
    decisions.assign(engine, one, spare, world.invoice(plan), "it is this one")
    ok, said = findings()["decisions"]
    assert not ok
    assert "because everybody in the team had a hand in it." in said
    accounts.add(engine, other, "finance")
    assert findings()["decisions"][0]


def test_who_else_comes_in(findings: Findings, engine: Engine, database_url: URL) -> None:
    assert findings()["people"][0]
    name = f"odd_{uuid.uuid4().hex[:8]}"
    accounts.add(engine, name, "finance")
    with engine.begin() as connection:
        connection.execute(text(f"GRANT CONNECT ON DATABASE {database_url.database} TO PUBLIC"))
        connection.execute(text(f"GRANT CREATE ON SCHEMA prepaid TO {name}"))
    wrong = _wrong(findings())["people"]
    assert "Every role of this server may connect" in wrong
    assert "'prepaid migrate' closes it" in wrong
    assert f"Sessions of {name} count as the pipeline's own" in wrong
