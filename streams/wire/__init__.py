"""What stands in topics: frames, settings changes, rejects, dead letters."""
