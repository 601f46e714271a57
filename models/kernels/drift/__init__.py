"""Sums of windows."""
