"""One revision per migration file."""
