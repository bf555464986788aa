"""The JSON Schema of the report's document, as it is shipped and published with the reports."""

from pathlib import Path

# The number is that of document.SCHEMA.
SCHEMA_FILE = "prepaid-monthly-report-1.schema.json"


def schema() -> bytes:
    """The schema (JSON Schema 2020-12)."""
    return (Path(__file__).parent / SCHEMA_FILE).read_bytes()
