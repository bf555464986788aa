"""The database: connections, SQL by name, migrations, the embedded server."""
