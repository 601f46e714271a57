"""Folds of `link` that only tests register."""
