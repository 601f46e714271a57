"""Drift of models: a second fold, and clients whose inputs move."""
