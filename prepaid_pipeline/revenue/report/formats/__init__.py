"""A report as HTML, PDF, spreadsheets and data files."""
