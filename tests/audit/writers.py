"""Transactions that write audit entries and end when they are told to."""

from sqlalchemy import Connection, Engine, text

_WRITE = text(
    "INSERT INTO prepaid.audit_log (event, entity, entity_id, detail, actor)"
    " SELECT 'written', 'test', n, :detail, 'writer' FROM generate_series(1, :entries) n"
)


class Writer:
    """One open transaction."""

    def __init__(self, engine: Engine) -> None:
        self.connection: Connection = engine.connect()

    def write(self, entries: int = 1, detail: str = "x") -> None:
        self.connection.execute(_WRITE, {"entries": entries, "detail": detail})

    def end(self, *, commit: bool = True) -> None:
        if commit:
            self.connection.commit()
        else:
            self.connection.rollback()
        self.connection.close()


def write(engine: Engine, entries: int = 1, detail: str = "x") -> None:
    writer = Writer(engine)
    writer.write(entries, detail)
    writer.end()
