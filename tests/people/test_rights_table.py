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
        "REVOKE USAGE ON SCHEMA revenue FROM leadership",
        "GRANT USAGE ON SCHEMA prepaid TO leadership; GRANT SELECT ON prepaid.tasks TO leadership",
    ):
        with world.engine.connect() as connection:
            connection.execute(text(change))
            assert rights.lines(connection) != written(), change
            connection.rollback()


def test_nothing_is_everybodys(world: World) -> None:
    assert world.rows(_PUBLIC) == []
    assert world.rows(_SEQUENCES, roles=list(rights.ROLES)) == []
    assert world.rows(_MEMBERS, teams=list(rights.ROLES[:4])) == []


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
