"""Steps 12 and 13: the monthly figures, their rules and validation, late data, drill-down, report."""
