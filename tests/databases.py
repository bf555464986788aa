"""Databases that tests use one after another: what a test wrote goes, what the server knows stays.

A fresh copy of the template costs 30 ms, and each session on it must look up and plan everything
anew, five times that. So a copy is used again, in the sessions that are open, after all its rows
and sequences are as in its template. Whatever else a test changed, a function or a trigger, is in
the catalogue: then the copy is thrown away.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, LiteralString, cast

import psycopg
from sqlalchemy import URL, Engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from prepaid_pipeline.database import connections

# Rows that were deleted stay in the files: with more than that a fresh copy is cheaper to read.
_MOST_BYTES = 8 << 20
_TABLES: LiteralString = """
    SELECT format('%I.%I', nspname, relname), pg_relation_size(c.oid)
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
    WHERE relkind = 'r' AND c.oid >= 16384 AND relpersistence = 'p' AND pg_relation_size(c.oid) > 0
"""
_SEQUENCES: LiteralString = """
    SELECT format('%I.%I', schemaname, sequencename), last_value FROM pg_sequences ORDER BY 1
"""
# The newest row and their number, of all that DDL writes. ANALYZE changes a row in its place.
_CATALOGUE: LiteralString = """
    SELECT 'class', count(*), max(xmin::text::bigint)
    FROM pg_class WHERE oid >= 16384 AND relpersistence = 'p'
    UNION ALL SELECT 'attribute', count(*), max(a.xmin::text::bigint)
    FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = attrelid
    WHERE attrelid >= 16384 AND relpersistence = 'p'
    UNION ALL SELECT 'attrdef', count(*), max(xmin::text::bigint) FROM pg_attrdef
    UNION ALL SELECT 'proc', count(*), max(xmin::text::bigint) FROM pg_proc WHERE oid >= 16384
    UNION ALL SELECT 'trigger', count(*), max(xmin::text::bigint) FROM pg_trigger
    UNION ALL SELECT 'constraint', count(*), max(xmin::text::bigint) FROM pg_constraint
    UNION ALL SELECT 'rewrite', count(*), max(xmin::text::bigint)
    FROM pg_rewrite WHERE oid >= 16384
    UNION ALL SELECT 'index', count(*), max(xmin::text::bigint)
    FROM pg_index WHERE indexrelid >= 16384
    UNION ALL SELECT 'namespace', count(*), sum(nspowner::bigint)::bigint
    FROM pg_namespace WHERE nspname !~ '^pg_'
    UNION ALL SELECT 'policy', count(*), max(xmin::text::bigint) FROM pg_policy
    UNION ALL SELECT 'settings', count(*), max(s.xmin::text::bigint)
    FROM pg_db_role_setting AS s JOIN pg_database AS d ON d.oid = setdatabase
    WHERE datname = current_database()
    ORDER BY 1
"""
# Whom a test let into the schemas: people are, as soon as they are added.
_ENTRIES: LiteralString = """
    SELECT quote_ident(nspname), quote_ident(r.rolname), a.privilege_type
    FROM pg_namespace AS n CROSS JOIN LATERAL aclexplode(nspacl) AS a
    JOIN pg_roles AS r ON r.oid = a.grantee
    WHERE nspname !~ '^pg_' AND a.grantee <> nspowner
"""
# They refuse a change even where replication would make it.
_ALWAYS: LiteralString = """
    SELECT tgrelid::regclass::text, quote_ident(tgname) FROM pg_trigger
    WHERE tgenabled = 'A' ORDER BY 1, 2
"""
_OTHERS: LiteralString = """
    SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend'
      AND pid <> pg_backend_pid() AND NOT pid = ANY(%s)
"""
_NEW_SESSION: LiteralString = (
    "RESET SESSION AUTHORIZATION; RESET ALL; UNLISTEN *; SELECT pg_advisory_unlock_all();"
    " DISCARD TEMP"
)


@dataclass
class Reused:
    """One copy of a template, and how to bring it back to that."""

    engine: Engine
    administrator: psycopg.Connection[Any]
    rows: dict[str, bytes] = field(default_factory=dict)
    sequences: list[Any] = field(default_factory=list)
    catalogue: list[Any] = field(default_factory=list)
    entries: set[Any] = field(default_factory=set)
    always: list[Any] = field(default_factory=list)
    sessions: set[int] = field(default_factory=set)

    @classmethod
    def at(cls, url: URL) -> "Reused":
        session = psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)
        reused = cls(connections.engine_for(url), session)
        event.listen(reused.engine, "connect", reused._opened)
        for table, _ in session.execute(_TABLES).fetchall():
            with session.cursor().copy(f"COPY {table} TO STDOUT (FORMAT binary)") as copied:
                reused.rows[table] = b"".join(copied)
        reused.sequences = session.execute(_SEQUENCES).fetchall()
        reused.always = session.execute(_ALWAYS).fetchall()
        reused.catalogue = session.execute(_CATALOGUE).fetchall()
        reused.entries = set(session.execute(_ENTRIES).fetchall())
        return reused

    def close(self) -> None:
        self.engine.dispose()
        self.administrator.close()

    def _opened(self, connection: Any, _record: Any) -> None:
        self.sessions.add(connection.info.backend_pid)

    @property
    def url(self) -> URL:
        """Without a driver, as the settings have it."""
        return self.engine.url.set(drivername="postgresql")

    def _left_open(self) -> bool:
        pool, dispatch = cast(QueuePool, self.engine.pool), cast(Any, self.engine.dispatch)
        return pool.checkedout() > 0 or bool(dispatch.before_cursor_execute)

    def _new_sessions(self) -> None:
        idle = cast(QueuePool, self.engine.pool).checkedin()
        for connection in [self.engine.raw_connection() for _ in range(idle)]:
            connection.driver_connection.execute(_NEW_SESSION)
            connection.commit()
            connection.close()

    @staticmethod
    def _run(session: psycopg.Connection[Any], commands: Iterable[str]) -> None:
        session.execute(cast(LiteralString, "; ".join(commands)))

    def _alter(self, session: psycopg.Connection[Any], triggers: list[Any], how: str) -> None:
        self._run(session, (f"ALTER TABLE {t} {how} TRIGGER {n}" for t, n in triggers))

    def restored(self) -> bool:
        """All as in the template again; False if it cannot be, or is not worth it."""
        try:
            return not self._left_open() and self._restore()
        except (psycopg.OperationalError, DBAPIError):
            # The test ended sessions: also these.
            return False

    def _restore(self) -> bool:
        self._new_sessions()
        session = self.administrator
        session.execute(_OTHERS, [list(self.sessions)])
        if session.execute(_CATALOGUE).fetchall() != self.catalogue:
            return False
        entries = set(session.execute(_ENTRIES).fetchall())
        if self.entries - entries:
            return False
        added = sorted(entries - self.entries)
        if added:
            self._run(session, (f"REVOKE {r} ON SCHEMA {n} FROM {who}" for n, who, r in added))
        # As it was made: 'prepaid migrate' closes a database to all but its people.
        self._run(session, [f'GRANT CONNECT ON DATABASE "{self.url.database}" TO PUBLIC'])
        used = session.execute(_TABLES).fetchall()
        if sum(size for _, size in used) > _MOST_BYTES:
            return False
        with session.transaction():
            session.execute("SET LOCAL session_replication_role = replica")
            always = [(t, n) for t, n in self.always if t in dict(used)]
            self._alter(session, always, "DISABLE")
            # The names are the catalogue's own, quoted.
            self._run(session, (f"DELETE FROM {table}" for table, _ in used))  # noqa: S608
            for table, rows in self.rows.items():
                with session.cursor().copy(f"COPY {table} FROM STDIN (FORMAT binary)") as copy:
                    copy.write(rows)
            self._alter(session, always, "ENABLE ALWAYS")
            for (name, before), (_, now) in zip(
                self.sequences, session.execute(_SEQUENCES).fetchall(), strict=True
            ):
                if before != now:
                    session.execute(
                        "SELECT setval(%s, coalesce(%s, 1), %s)",
                        [name, before, before is not None],
                    )
            self.catalogue = session.execute(_CATALOGUE).fetchall()
        return True


@dataclass
class Databases:
    """The copies that a process has at hand: of the template that most tests have, and one other."""

    most: str
    make: Callable[[str], URL]
    drop: Callable[[URL], None]
    _idle: dict[str, list[Reused]] = field(default_factory=dict)

    @contextmanager
    def copy_of(self, template: str) -> Iterator[Reused]:
        """A database as the template is, alone for the time being."""
        for other in self._idle.keys() - {self.most, template}:
            self._forget(other)
        idle = self._idle.setdefault(template, [])
        database = idle.pop() if idle else Reused.at(self.make(template))
        try:
            yield database
        finally:
            if database.restored():
                idle.append(database)
            else:
                self._dropped(database)

    def _dropped(self, database: Reused) -> None:
        database.close()
        self.drop(database.url)

    def _forget(self, template: str) -> None:
        for database in self._idle.pop(template):
            self._dropped(database)

    def close(self) -> None:
        for template in list(self._idle):
            self._forget(template)
