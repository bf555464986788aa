"""The settings: environment variables, read once and checked."""
