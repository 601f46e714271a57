"""Attacks that must be found and look-alikes that must stay silent: each a folder, run through calibrate and replay."""
