"""What calibration leaves, and who vouches for it."""
