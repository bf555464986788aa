"""The audit log: its seals, and the anchors of the seals outside the database."""
