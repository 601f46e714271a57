"""Averages of clients' inputs and sums of windows."""
