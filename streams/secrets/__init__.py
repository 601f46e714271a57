"""Secrets: where they are read from; never shown."""
