"""What analysts do with events: list, group, explain, label, order, suppress; see docs/analyst.md."""
