"""What the tests of this folder share: sample files, and what landed."""

from datetime import UTC
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from prepaid_pipeline.billing.providers.loading import import_payments
from prepaid_pipeline.billing.providers.records import PaymentsReport

FILES = Path(__file__).parent / "files"


def take(engine: Engine, path: Path, **options: Any) -> PaymentsReport:
    return import_payments(engine, path, **{"timezone": UTC, **options})


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def landed(engine: Engine, columns: str = "provider_ref, status, amount") -> list[tuple[Any, ...]]:
    """The landed records in their order; amounts and moments as text."""
    query = f"SELECT {columns} FROM prepaid.transactions ORDER BY transaction_id"  # noqa: S608
    with engine.connect() as connection:
        connection.execute(text("SET timezone = 'UTC'"))
        rows = connection.execute(text(query)).all()
    return [tuple(v if v is None else str(v) for v in row) for row in rows]
