"""People and what they decide: accounts, sign-offs, releases, overdue tasks."""
