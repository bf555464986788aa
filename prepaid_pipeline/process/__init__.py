"""The renewal process without an orchestrator: steps 0 to 11, due, drain, story."""
