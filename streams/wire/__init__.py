"""Formats of messages in topics: frames, settings changes, rejects, dead letters."""
