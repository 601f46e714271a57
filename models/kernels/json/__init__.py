"""JSON text to columns."""
