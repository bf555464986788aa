"""What holds the sign-off desk together in the database: rights, controls, accounts, reminders."""
