"""Fitting the tables and certifying the thresholds, with the fold itself."""
