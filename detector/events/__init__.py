"""A finding: everything known about a decision, and its bytes."""
