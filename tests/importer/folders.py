"""Small valid folders, and what a database holds after an import."""

from datetime import date
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from prepaid_pipeline.importer.loading import import_directory
from prepaid_pipeline.importer.reports import FileReport

AS_OF = date(2026, 11, 1)

BASE = {
    "customers": """\
customer_ref,name,email,country,currency,tax_exempt
C-1,Amber Bakery,amber@example.com,US,USD,false
C-2,Birch Books,,DE,EUR,true
C-3,Coral Cycles,coral@example.com,JP,JPY,false
""",
    "plans": """\
plan_code,name,term,currency,price,tax_class
basic,Basic,P1M,USD,10.00,standard
basic,Basic,P1M,EUR,9.00,standard
basic,Basic,P1M,JPY,1000,standard
flex,Flex,P30D,USD,12.00,
partner,Partner,P1Y,USD,,reduced
""",
    "addons": """\
addon_code,name,term,currency,price,recurring
storage,Storage,P1M,USD,2.00,true
storage,Storage,P1M,EUR,1.90,true
set-up,Set-up,P1M,USD,5.00,false
""",
    "tax_rates": """\
country,tax_class,rate,valid_from
US,standard,0.0725,2019-01-01
DE,standard,0.19,2021-01-01
""",
    "subscriptions": """\
subscription_ref,customer_ref,plan_code,started_on,auto_renew,price,addons
S-1,C-1,basic,2026-08-15,true,,storage;set-up
S-2,C-2,basic,2026-09-20,true,8.50,
S-3,C-3,basic,2026-10-31,true,,
S-4,C-1,flex,2026-10-15,true,,
S-5,C-1,basic,2026-11-02,true,,
""",
    "service_plans": """\
subscription_ref,start_date,end_date,price,status
S-1,2026-08-15,2026-09-15,10.00,Expired
S-1,2026-09-15,2026-10-15,10.00,Expired
S-1,2026-10-15,2026-11-15,10.00,Active
S-2,2026-09-20,2026-10-20,8.50,Expired
S-4,2026-10-15,2026-11-14,12.00,Active
""",
}


def write(directory: Path, files: dict[str, str | bytes]) -> Path:
    """Write ``<name>.csv`` files; returns the directory."""
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (directory / f"{name}.csv").write_bytes(data)
    return directory


def take(
    engine: Engine, directory: Path, files: dict[str, Any], as_of: date = AS_OF
) -> dict[str, FileReport]:
    """Import just these files; the reports by file name without .csv."""
    for old in directory.glob("*.csv"):
        old.unlink()
    reports = import_directory(engine, write(directory, files), as_of=as_of, grace_days=7)
    return {report.file.removesuffix(".csv"): report for report in reports}


def rows(engine: Engine, sql: str, **params: Any) -> list[tuple[Any, ...]]:
    """The rows of a query as plain tuples."""
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(sql), params)]


def dump(engine: Engine) -> dict[str, Any]:
    """Every row of every table in the schema."""
    tables = rows(
        engine,
        "SELECT format('prepaid.%I', tablename) FROM pg_tables WHERE schemaname = 'prepaid'",
    )
    query = "SELECT jsonb_agg(to_jsonb(t) ORDER BY to_jsonb(t)::text) FROM {} t"
    return {table: rows(engine, query.format(table)) for (table,) in tables}
