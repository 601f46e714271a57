"""Inputs to integers."""
