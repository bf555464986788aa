"""The controls of the sign-offs: each with how it is taken away, and something that it must stop.

``take_away`` and ``attempt`` are SQL; {names} stand for rows that test_controls.py makes. ``given``
holds with the control and without it. A control that another one stands behind takes both away.
"""

from dataclasses import dataclass

# What a control can be beside the name of a constraint, an index or a trigger.
ALWAYS, GRANT, RULE = "fires in replica mode too", "not granted", "rule of a function or view"


@dataclass(frozen=True)
class Control:
    """``name``: in the catalogue, or one of the words above with what it is about."""

    name: str
    take_away: str
    attempt: str
    who: str | None = None  # the role; None: the owner
    given: str = ""


def _constraint(table: str, name: str, attempt: str, given: str = "") -> Control:
    away = f"ALTER TABLE prepaid.{table} DROP CONSTRAINT {name} CASCADE"
    return Control(name, away, attempt, given=given)


def _index(name: str, attempt: str) -> Control:
    return Control(name, f"DROP INDEX prepaid.{name}", attempt)


def _trigger(table: str, name: str, attempt: str, given: str = "") -> Control:
    return Control(name, f"DROP TRIGGER {name} ON prepaid.{table}", attempt, given=given)


def _function(
    about: str, old: str, new: str, attempt: str, who: str | None, more: str = ""
) -> Control:
    """A line of decide_tasks; ``more``: what else stands behind it."""
    away = f"SELECT pg_temp.rewrite('prepaid.decide_tasks', $x${old}$x$, $x${new}$x$); {more}"
    return Control(f"{RULE}: {about}", away, attempt, who)


_TASK = "UPDATE prepaid.tasks SET {} WHERE task_id = {{{}}}"
_SIGN = (
    "INSERT INTO prepaid.sign_offs (task_id, decision, decided_by) VALUES ({task}, '{decision}',"
    " '{{ann}}')"
)
_UNSIGNED = "ALTER TABLE prepaid.sign_offs DISABLE TRIGGER only_people_sign"
_REPLICA = "SET LOCAL session_replication_role = replica"
_REMIND = "INSERT INTO prepaid.task_reminders VALUES ({}, '{}', 'a@b.c', {}, '2026-11-06')"
_SESSION = (
    "INSERT INTO prepaid.desk_sessions (token_hash, person, expires_at, idle_seconds)"
    " SELECT decode(repeat('00', {size}), 'hex'), '{person}', now(), {idle}"
    " FROM generate_series(1, {n})"
)


def _task(column: str, value: str, row: str = "waiting") -> str:
    return _TASK.format(f"{column} = {value}", row)


def _append_only(table: str, key: str, always: bool, *, erasable: bool = False) -> list[Control]:
    """``erasable``: people's words in it can be erased, which a trigger of its own sees to."""
    other = f"{table}_append_only"
    attempts = {
        f"UPDATE prepaid.{table} SET {key} = {key}": f"{table}_notes" if erasable else other,  # noqa: S608
        f"DELETE FROM prepaid.{table}": other,  # noqa: S608
        f"TRUNCATE prepaid.{table}": other,
    }
    found = [_trigger(table, name, attempt) for attempt, name in attempts.items()]
    if always:
        found += [
            Control(
                f"{ALWAYS}: {name}",
                f"ALTER TABLE prepaid.{table} ENABLE TRIGGER {name}",
                attempt,
                given=_REPLICA,
            )
            for attempt, name in attempts.items()
        ]
    return found


CHECKS = [
    _constraint("tasks", "tasks_assigned_role_check", _task("assigned_role", "'leadership'")),
    _constraint("tasks", "tasks_check", _task("status", "'Done'")),
    _constraint("tasks", "tasks_check1", _task("status = 'Done', decision", "'passed'")),
    _constraint("tasks", "tasks_check2", _task("invoice_id", "NULL")),
    _constraint("tasks", "tasks_check3", _task("kind", "'payment_refund'")),
    _constraint("tasks", "tasks_check4", _task("kind", "'payment_review'")),
    _constraint("tasks", "tasks_check5", _task("service_plan_id", "NULL", "quality")),
    _constraint(
        "tasks", "tasks_concession_says_what", _task("kind", "'price_concession'", "waiting")
    ),
    _constraint("tasks", "tasks_kind_check", _task("kind", "'tea'")),
    _constraint("tasks", "tasks_status_check", _task("status", "'Lost'", "rejected")),
    _constraint("tasks", "tasks_first_approval_is_whole", _task("first_approved_by", "'x'")),
    _constraint(
        "tasks",
        "tasks_first_approval_leads_to_another",
        _task("first_approved_at = now(), first_approved_by", "'x'", "rejected"),
    ),
    _constraint(
        "tasks",
        "tasks_approved_by_two_people",
        _task("status = 'Done', decision = 'approved', decided_by", "first_approved_by", "first"),
    ),
    _constraint(
        "sign_offs",
        "sign_offs_decision_check",
        _SIGN.format(task="{waiting}", decision="perhaps"),
        _UNSIGNED,
    ),
    _constraint(
        "task_reminders",
        "task_reminders_stage_check",
        _REMIND.format("{waiting}", "later", "{email}"),
    ),
    _constraint(
        "approval_limits",
        "approval_limits_amount_check",
        "INSERT INTO prepaid.approval_limits VALUES ('JPY', 'NaN')",
    ),
    _constraint(
        "desk_accounts",
        "desk_accounts_email_check",
        "UPDATE prepaid.desk_accounts SET email = E'a@b.c\\nBcc: d@e.f'",
    ),
    _constraint(
        "desk_accounts",
        "desk_accounts_failed_check",
        "UPDATE prepaid.desk_accounts SET failed = -100",
    ),
    _constraint(
        "desk_accounts",
        "desk_accounts_password_hash_check",
        "UPDATE prepaid.desk_accounts SET password_hash = 'secret'",
    ),
    _constraint(
        "desk_sessions",
        "desk_sessions_idle_seconds_check",
        _SESSION.format(size=32, person="{ann}", idle=0, n=1),
    ),
    _constraint(
        "desk_sessions",
        "desk_sessions_token_hash_check",
        _SESSION.format(size=8, person="{ann}", idle=60, n=1),
    ),
]

KEYS = [
    *(
        _constraint("tasks", f"tasks_{column}_fkey", _task(column, "0"))
        for column in (
            "credit_note_id",
            "invoice_id",
            "parent_task_id",
            "service_plan_id",
            "transaction_id",
        )
    ),
    _constraint(
        "tasks",
        "tasks_pkey",
        "INSERT INTO prepaid.tasks"
        " (task_id, kind, service_plan_id, assigned_role, opened_on, due_on)"
        " OVERRIDING SYSTEM VALUE VALUES ({waiting}, 'quality_follow_up', {plan},"
        " 'customer_success', '2026-11-02', '2026-11-05')",
    ),
    _constraint(
        "tasks",
        "tasks_parent_task_id_key",
        "INSERT INTO prepaid.tasks (kind, service_plan_id, parent_task_id, assigned_role,"
        " opened_on, due_on) SELECT 'quality_follow_up', {plan}, {quality}, 'customer_success',"
        " '2026-11-02', '2026-11-05' FROM generate_series(1, 2)",
    ),
    _index(
        "tasks_one_live_verification_per_invoice",
        "INSERT INTO prepaid.tasks (kind, service_plan_id, invoice_id, assigned_role, opened_on,"
        " due_on) SELECT kind, service_plan_id, invoice_id, assigned_role, opened_on, due_on"
        " FROM prepaid.tasks WHERE task_id = {waiting}",
    ),
    _index(
        "tasks_one_review_per_record",
        "INSERT INTO prepaid.tasks (kind, transaction_id, assigned_role, opened_on, due_on)"
        " SELECT 'payment_review', {record}, 'finance', '2026-11-02', '2026-11-05'"
        " FROM generate_series(1, 2)",
    ),
    _index(
        "tasks_one_open_concession_per_plan",
        "INSERT INTO prepaid.tasks (kind, service_plan_id, concession, assigned_role, opened_on,"
        " due_on) SELECT 'price_concession', {plan}, '{{}}', 'finance', '2026-11-02', '2026-11-05'"
        " FROM generate_series(1, 2)",
    ),
    _index(
        "tasks_one_quality_check_per_plan",
        "INSERT INTO prepaid.tasks (kind, service_plan_id, assigned_role, opened_on, due_on)"
        " VALUES ('quality_check', {plan}, 'customer_success', '2026-11-02', '2026-11-05')",
    ),
    _constraint(
        "sign_offs",
        "sign_offs_task_id_fkey",
        _SIGN.format(task="0", decision="approved"),
        _UNSIGNED,
    ),
    _constraint(
        "sign_offs",
        "sign_offs_pkey",
        "INSERT INTO prepaid.sign_offs (sign_off_id, task_id, decision, decided_by)"
        " OVERRIDING SYSTEM VALUE SELECT sign_off_id, task_id, decision, decided_by"
        " FROM prepaid.sign_offs",
        _UNSIGNED,
    ),
    _constraint(
        "task_assignments",
        "task_assignments_task_id_fkey",
        "INSERT INTO prepaid.task_assignments (task_id, assigned_by) VALUES (0, '{ann}')",
    ),
    _constraint(
        "task_assignments",
        "task_assignments_pkey",
        "INSERT INTO prepaid.task_assignments (assignment_id, task_id, assigned_by)"
        " OVERRIDING SYSTEM VALUE SELECT 7, {waiting}, 'x' FROM generate_series(1, 2)",
    ),
    _constraint(
        "task_reminders", "task_reminders_task_id_fkey", _REMIND.format("0", "overdue", "{email}")
    ),
    _constraint(
        "task_reminders",
        "task_reminders_email_id_fkey",
        _REMIND.format("{waiting}", "overdue", "0"),
    ),
    _constraint(
        "task_reminders",
        "task_reminders_pkey",
        _REMIND.format("{waiting}", "overdue", "{email}"),
        _REMIND.format("{waiting}", "overdue", "{email}"),
    ),
    _constraint(
        "approval_limits",
        "approval_limits_currency_fkey",
        "INSERT INTO prepaid.approval_limits VALUES ('XXX', 1)",
    ),
    _constraint(
        "approval_limits",
        "approval_limits_pkey",
        "INSERT INTO prepaid.approval_limits VALUES ('USD', 1000000)",
    ),
    _constraint(
        "desk_accounts",
        "desk_accounts_pkey",
        "INSERT INTO prepaid.desk_accounts (person) VALUES ('{ann}')",
    ),
    _constraint(
        "desk_sessions",
        "desk_sessions_person_fkey",
        _SESSION.format(size=32, person="nobody", idle=60, n=1),
    ),
    _constraint(
        "desk_sessions",
        "desk_sessions_pkey",
        _SESSION.format(size=32, person="{ann}", idle=60, n=2),
    ),
    _constraint(
        "audit_log",
        "audit_log_pkey",
        "INSERT INTO prepaid.audit_log (audit_id, event, entity, actor) OVERRIDING SYSTEM"
        " VALUE SELECT min(audit_id), 'x', 'x', 'x' FROM prepaid.audit_log",
    ),
    _index(
        "audit_log_provisioned_once",
        "INSERT INTO prepaid.audit_log (event, service_plan_id, entity, actor)"
        " VALUES ('service_provisioned', {plan}, 'service_plan', 'x')",
    ),
    _index(
        "audit_log_opening_failed",
        "INSERT INTO prepaid.audit_log (event, entity, entity_id, as_of, actor)"
        " SELECT 'opening_failed', 'x', 1, '2026-11-02', 'x' FROM generate_series(1, 2)",
    ),
]

# Raises when the change that it makes is in the audit log: what must not happen is that it is not.
_LOGGED = (
    "DO $x$ BEGIN {change}; IF EXISTS (SELECT FROM prepaid.audit_log WHERE event = '{event}'"
    " AND actor = 'who tries') THEN RAISE EXCEPTION 'it is in the audit log'; END IF; END $x$"
)
_TRYING = "SELECT set_config('prepaid.actor', 'who tries', true)"
TRIGGERS = [
    *_append_only("sign_offs", "note", always=True, erasable=True),
    *_append_only("audit_log", "detail", always=True),
    *_append_only("audit_seals", "sealed_through", always=True),
    *_append_only("task_assignments", "note", always=False, erasable=True),
    _trigger("sign_offs", "only_people_sign", _SIGN.format(task="{waiting}", decision="approved")),
    Control(
        f"{ALWAYS}: only_people_sign",
        "ALTER TABLE prepaid.sign_offs ENABLE TRIGGER only_people_sign",
        _SIGN.format(task="{waiting}", decision="approved"),
        given=_REPLICA,
    ),
    _trigger(
        "tasks",
        "require_two_people",
        _task("status = 'Done', decision = 'approved', decided_by", "'{ann}'"),
    ),
    _trigger(
        "tasks",
        "audit_task_status",
        _LOGGED.format(change=_task("status", "'Withdrawn'"), event="task_withdrawn"),
        _TRYING,
    ),
    _trigger(
        "approval_limits",
        "audit_approval_limit",
        _LOGGED.format(
            change="DELETE FROM prepaid.approval_limits", event="approval_limit_changed"
        ),
        _TRYING,
    ),
    _trigger(
        "invoices",
        "check_invoice_transition",
        "UPDATE prepaid.invoices SET status = 'Paid', paid_on = '2026-11-02'"
        " WHERE invoice_id = (SELECT invoice_id FROM prepaid.tasks"
        " WHERE task_id = {waiting})",
    ),
]


def _granted(right: str, to: str, attempt: str, who: str, more: str = "") -> Control:
    """``more``: what else stands behind it."""
    away = f"GRANT {right} TO {to}; {more}"
    return Control(f"{GRANT}: {right} TO {to}", away, attempt, who)


# What is changed is logged with the rights of who changes it.
_MAY_LOG = "GRANT INSERT ON prepaid.audit_log TO finance"
GRANTS = [
    _granted("UPDATE ON prepaid.tasks", "finance", _task("status", "'Withdrawn'"), "ann", _MAY_LOG),
    _granted(
        "DELETE ON prepaid.approval_limits",
        "finance",
        "DELETE FROM prepaid.approval_limits",
        "ann",
        _MAY_LOG,
    ),
    _granted("SELECT ON prepaid.desk_accounts", "finance", "TABLE prepaid.desk_accounts", "ann"),
    _granted(
        "SELECT ON prepaid.desk_sessions", "engineering", "TABLE prepaid.desk_sessions", "engineer"
    ),
    _granted("SELECT ON prepaid.audit_log", "customer_success", "TABLE prepaid.audit_log", "care"),
    _granted(
        "SELECT ON prepaid.tasks",
        "desk",
        "TABLE prepaid.tasks",
        "desk",
        "GRANT USAGE ON SCHEMA prepaid TO desk",
    ),
    _granted(
        "EXECUTE ON FUNCTION prepaid.desk_open_session",
        "finance",
        "SELECT prepaid.desk_open_session(sha256('mine'), '{bob}', 60, 60)",
        "ann",
    ),
    _granted(
        "SELECT, UPDATE (decision) ON prepaid.payment_verifications",
        "customer_success",
        "UPDATE prepaid.payment_verifications SET decision = 'approved' WHERE task_id = {cheap}",
        "care",
        f"{_UNSIGNED}; SELECT pg_temp.rewrite('prepaid.decide_tasks',"
        " 'k.assigned_role <> ALL (teams)', 'false')",
    ),
]

_DECIDE = "SELECT prepaid.decide_tasks(ARRAY[CAST({{{}}} AS bigint)], '{}'{})"


def _decide(task: str, decision: str, note: str = "") -> str:
    return _DECIDE.format(task, decision, note)


def _members(old: str, new: str) -> str:
    return f"SELECT pg_temp.rewrite_view('prepaid.team_members', $x${old}$x$, $x${new}$x$)"


# An account comes first, without which nobody is a person.
_ACCOUNT = "INSERT INTO prepaid.desk_accounts (person, teams) VALUES ('{}', '{{{{finance}}}}')"

RULES = [
    _function(
        "the team decides",
        "k.assigned_role <> ALL (teams)",
        "false",
        _decide("cheap", "approved"),
        "care",
        _UNSIGNED,
    ),
    _function("four eyes", "own.what IS NOT NULL", "false", _decide("touched", "approved"), "ann"),
    _function(
        "no approval of what no record pays",
        "prepaid.payment_stands(k.invoice_id) IS NOT TRUE",
        "false",
        _decide("unpaid", "approved"),
        "ann",
    ),
    _function(
        "the first is not the second",
        "k.first_approved_by = person",
        "false",
        _decide("first", "approved"),
        "ann",
        "ALTER TABLE prepaid.tasks DROP CONSTRAINT tasks_approved_by_two_people",
    ),
    _function(
        "a rejection says why",
        "new_decision IN ('rejected', 'failed') AND",
        "false AND",
        _decide("cheap", "rejected"),
        "ann",
    ),
    _function(
        "what is paid stands",
        "i.status <> 'Open' AND",
        "false AND",
        _decide("paid", "rejected", ", 'why'"),
        "ann",
    ),
    _function(
        "what was withdrawn stays so",
        "k.status = 'Withdrawn'",
        "false",
        _decide("withdrawn", "approved"),
        "ann",
        "DROP INDEX prepaid.tasks_one_live_verification_per_invoice",
    ),
    Control(
        f"{RULE}: a team is nobody",
        _members("NOT (r.rolname IN", "true OR NOT (r.rolname IN")
        + f"; GRANT USAGE ON SCHEMA prepaid TO finance; {_ACCOUNT.format('finance')}",
        _decide("cheap", "approved"),
        "finance",
    ),
    Control(
        f"{RULE}: the owner is nobody",
        _members("NOT r.rolsuper", "true")
        + f"; {_members('r.oid <>', 'true OR r.oid <>')}; {_ACCOUNT.format('postgres')}",
        _decide("cheap", "approved"),
    ),
    Control(
        f"{RULE}: who is disabled is nobody",
        _members("NOT a.disabled", "true"),
        _decide("cheap", "approved"),
        "ann",
        "UPDATE prepaid.desk_accounts SET disabled = true",
    ),
    Control(
        f"{RULE}: whom another installation put into a team is nobody here",
        _members("t.team = ANY (a.teams)", "true"),
        _decide("cheap", "approved"),
        "ann",
        "UPDATE prepaid.desk_accounts SET teams = '{{leadership}}'",
    ),
    Control(
        f"{RULE}: who has no entry can do nothing",
        "SELECT prepaid.let_in('{ann}')",
        _decide("cheap", "approved"),
        "ann",
        "SELECT prepaid.shut_out('{ann}')",
    ),
]

CONTROLS = [*CHECKS, *KEYS, *TRIGGERS, *GRANTS, *RULES]
