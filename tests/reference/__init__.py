"""Slow, obvious twins of everything that is fast. They import nothing of what they test."""
