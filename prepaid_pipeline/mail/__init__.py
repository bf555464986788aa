"""Mails: writing them from templates, sending what is in the outbox, and alerts."""
