"""The fold of one client with tracing on, and what it explains."""
