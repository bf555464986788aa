"""Steps 12 and 13: the monthly figures, their validation, late data, drill-down, report."""
