"""The rights of the teams and the desk, by the database's own catalogue, as lines of a table."""

from sqlalchemy import Connection, text

ROLES = ("finance", "customer_success", "leadership", "engineering", "desk")

# What a role may do in effect, PUBLIC's rights included, for those whom the schema lets in.
_RELATIONS = """
SELECT n.nspname || '.' || c.relname AS name, r.role, p.privilege,
       bool_and(granted.yes) AS whole,
       string_agg(a.attname, ', ' ORDER BY a.attname) FILTER (WHERE granted.yes) AS columns,
       string_agg(a.attname, ', ' ORDER BY a.attname) FILTER (WHERE NOT granted.yes) AS others
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname IN ('prepaid', 'revenue')
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
CROSS JOIN unnest(CAST(:roles AS text[])) r (role)
CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) p (privilege)
CROSS JOIN LATERAL (
    SELECT has_column_privilege(r.role, c.oid, a.attnum, p.privilege) AS yes) granted
WHERE c.relkind IN ('r', 'v', 'm', 'p', 'f')
GROUP BY 1, 2, 3
UNION ALL
SELECT n.nspname || '.' || c.relname, r.role, p.privilege, granted.yes, '*', NULL
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname IN ('prepaid', 'revenue')
CROSS JOIN unnest(CAST(:roles AS text[])) r (role)
CROSS JOIN unnest(ARRAY['DELETE', 'TRUNCATE', 'TRIGGER']) p (privilege)
CROSS JOIN LATERAL (SELECT has_table_privilege(r.role, c.oid, p.privilege) AS yes) granted
WHERE c.relkind IN ('r', 'v', 'm', 'p', 'f')
"""
_FUNCTIONS = """
SELECT p.oid::regprocedure::text AS name, r.role,
       has_function_privilege(r.role, p.oid, 'EXECUTE') AS yes
FROM pg_proc p
JOIN pg_namespace n ON n.oid = p.pronamespace AND n.nspname IN ('prepaid', 'revenue')
CROSS JOIN unnest(CAST(:roles AS text[])) r (role)
WHERE p.prosecdef
"""


def lines(connection: Connection) -> list[str]:
    """One line per table, view and function that acts with the owner's rights, sorted."""
    cells: dict[str, dict[str, list[str]]] = {}
    asked = {"roles": list(ROLES)}
    for row in connection.execute(text(_RELATIONS), asked):
        rights = cells.setdefault(row.name, {}).setdefault(row.role, [])
        if row.whole:
            rights.append("read" if row.privilege == "SELECT" else row.privilege.lower())
        elif row.columns not in (None, "*") and row.privilege == "SELECT":
            rights.append(f"read without {row.others}")
        elif row.columns not in (None, "*"):
            rights.append(f"{row.privilege.lower()} ({row.columns})")
    for row in connection.execute(text(_FUNCTIONS), asked):
        cells.setdefault(row.name, {})[row.role] = ["call"] if row.yes else []
    return [
        f"| `{name}` | "
        + " | ".join(", ".join(sorted(roles[role])) or "-" for role in ROLES)
        + " |"
        for name, roles in sorted(cells.items())
    ]
