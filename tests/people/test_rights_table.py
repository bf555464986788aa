"""docs/rights.md and the database's catalogue say the same, in both directions."""

from pathlib import Path

from sqlalchemy import text

from tests.people import rights
from tests.world import World

PAGE = Path(__file__).parents[2] / "docs" / "rights.md"
# What anybody who may connect could use; functions with the caller's own rights do no harm.
_PUBLIC = """
SELECT c.oid::regclass::text FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname IN ('prepaid', 'revenue')
CROSS JOIN LATERAL aclexplode(c.relacl) a WHERE a.grantee = 0
UNION ALL
SELECT p.oid::regprocedure::text FROM pg_proc p
JOIN pg_namespace n ON n.oid = p.pronamespace AND n.nspname IN ('prepaid', 'revenue')
CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
WHERE p.prosecdef AND a.grantee = 0
UNION ALL
SELECT n.nspname FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) a
WHERE n.nspname IN ('prepaid', 'revenue') AND a.grantee = 0
"""
_LOOSE = """
SELECT p.oid::regprocedure::text FROM pg_proc p
JOIN pg_namespace n ON n.oid = p.pronamespace AND n.nspname IN ('prepaid', 'revenue')
WHERE p.prosecdef AND NOT coalesce(p.proconfig @> ARRAY['search_path=prepaid, pg_temp'], false)
"""
_SEQUENCES = """
SELECT c.oid::regclass::text, r.role FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname IN ('prepaid', 'revenue')
CROSS JOIN unnest(CAST(:roles AS text[])) r (role)
WHERE c.relkind = 'S' AND has_sequence_privilege(r.role, c.oid, 'USAGE, SELECT, UPDATE')
"""
_MEMBERS = """
SELECT g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
JOIN pg_roles r ON r.oid = m.member WHERE r.rolname = ANY (CAST(:teams AS text[]))
"""


def written() -> list[str]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    (head,) = (n for n, line in enumerate(lines) if line.startswith("| table, view or function |"))
    assert [cell.strip() for cell in lines[head].split("|")[2:-1]] == list(rights.ROLES)
    return lines[head + 2 :]


def test_the_table_is_what_the_database_has(world: World) -> None:
    with world.engine.connect() as connection:
        there = rights.lines(connection)
    missing = "\n".join(line for line in there if line not in written())
    assert written() == there, f"docs/rights.md should have\n{missing}"
    assert len(there) > 80


def test_a_right_more_or_less_is_found(world: World) -> None:
    """The comparison sees every kind of right: of a table, a column, a function, through PUBLIC."""
    for change in (
        "GRANT SELECT (email) ON prepaid.desk_accounts TO engineering",
        "GRANT INSERT ON prepaid.sign_offs TO finance",
        "GRANT TRUNCATE ON prepaid.audit_log TO engineering",
        "GRANT UPDATE ON prepaid.payment_verifications TO finance",
        "GRANT EXECUTE ON FUNCTION prepaid.decide_tasks TO desk",
        "GRANT EXECUTE ON FUNCTION prepaid.set_password TO finance; "
        "ALTER FUNCTION prepaid.set_password SECURITY DEFINER",
        "GRANT SELECT ON prepaid.tasks TO PUBLIC",
        "REVOKE SELECT ON prepaid.tasks FROM finance",
        "GRANT SELECT (note) ON prepaid.tasks TO customer_success",
        "GRANT SELECT ON prepaid.tasks TO leadership",
    ):
        with world.engine.connect() as connection:
            connection.execute(text(change))
            assert rights.lines(connection) != written(), change
            connection.rollback()


def test_nothing_is_everybodys(world: World) -> None:
    assert world.rows(_PUBLIC) == []
    assert world.rows(_SEQUENCES, roles=list(rights.ROLES)) == []
    assert world.rows(_MEMBERS, teams=list(rights.ROLES[:4])) == []


def test_no_team_has_entry(world: World) -> None:
    """Their roles belong to the whole server: entry is a person's, and the desk's login's."""
    held = (
        "SELECT r.role, n.nspname FROM unnest(CAST(:roles AS text[])) r (role)"
        " CROSS JOIN pg_namespace n WHERE n.nspname IN ('prepaid', 'revenue')"
        " AND has_schema_privilege(r.role, n.oid, 'USAGE')"
    )
    assert world.rows(held, roles=list(rights.ROLES)) == []
    world.sql("GRANT USAGE ON SCHEMA revenue TO leadership")
    assert world.rows(held, roles=list(rights.ROLES)) == [("leadership", "revenue")]


def test_what_a_team_reads_through_a_view_it_reads_through_a_barrier(world: World) -> None:
    """Where it may not read all that is behind the view: a condition of the reader's own cannot
    tell of rows that the view leaves out.
    """
    through = (
        "SELECT DISTINCT v.oid::regclass::text, 'security_barrier=true' = ANY (v.reloptions)"
        " FROM pg_class v JOIN pg_rewrite w ON w.ev_class = v.oid"
        " JOIN pg_depend d ON d.objid = w.oid AND d.classid = 'pg_rewrite'::regclass"
        " AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> v.oid"
        " JOIN pg_class b ON b.oid = d.refobjid AND b.relkind IN ('r', 'v')"
        " AND b.relnamespace IN ('prepaid'::regnamespace, 'revenue'::regnamespace)"
        " CROSS JOIN unnest(CAST(:roles AS text[])) r (role)"
        " WHERE v.relkind = 'v' AND has_any_column_privilege(r.role, v.oid, 'SELECT')"
        " AND NOT has_table_privilege(r.role, b.oid, 'SELECT')"
    )
    found = dict(world.rows(through, roles=list(rights.ROLES)))
    assert len(found) > 10
    assert [name for name, is_barrier in found.items() if not is_barrier] == []
    world.sql("ALTER VIEW prepaid.decisions RESET (security_barrier)")
    assert not dict(world.rows(through, roles=list(rights.ROLES)))["prepaid.decisions"]


def test_what_people_call_writes_dates_in_one_way(world: World) -> None:
    """DateStyle is the session's: what goes into the audit log must not be."""
    loose = (
        "SELECT DISTINCT p.oid::regprocedure::text FROM pg_proc p"
        " CROSS JOIN unnest(CAST(:roles AS text[])) r (role)"
        " WHERE p.pronamespace = 'prepaid'::regnamespace AND p.prosecdef AND p.provolatile = 'v'"
        " AND has_function_privilege(r.role, p.oid, 'EXECUTE')"
        " AND NOT coalesce('DateStyle=ISO, YMD' = ANY (p.proconfig), false)"
    )
    assert world.rows(loose, roles=["finance", "customer_success", "leadership"]) == []


def test_what_a_session_says_of_itself_is_read_in_one_place(world: World) -> None:
    """prepaid.context asks whose session it is; everybody can set prepaid.*."""
    assert world.rows(
        "SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.prokind = 'f'"
        " AND p.pronamespace IN ('prepaid'::regnamespace, 'revenue'::regnamespace)"
        " AND pg_get_functiondef(p.oid) ~ 'current_setting[(]+''(prepaid|application_name)'"
    ) == [("prepaid.context(text)",)]


def test_what_acts_with_the_owners_rights_finds_only_our_tables(world: World) -> None:
    """A fixed search_path: nobody puts a table of their own before ours."""
    assert world.rows(_LOOSE) == []


def test_the_owner_gave_its_rights_to_change_what_was_signed_away(world: World) -> None:
    assert (
        world.rows(
            "SELECT c.relname, a.privilege_type FROM pg_class c"
            " CROSS JOIN LATERAL aclexplode(c.relacl) a"
            " WHERE c.oid IN ('prepaid.sign_offs'::regclass, 'prepaid.audit_log'::regclass)"
            " AND a.grantee = c.relowner AND a.privilege_type IN ('UPDATE', 'DELETE', 'TRUNCATE')"
        )
        == []
    )
