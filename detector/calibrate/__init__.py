"""Calibration: fit the tables, screen clients, certify the thresholds; with the fold itself."""
