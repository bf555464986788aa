"""The page of a report: its blocks, tables and charts, for HTML and PDF alike."""
