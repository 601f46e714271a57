"""Artefacts from history: calibrate, certify, training sets."""
