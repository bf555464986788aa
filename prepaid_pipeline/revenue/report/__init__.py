"""The monthly revenue report: figures, versions, pages and where they are kept."""
