"""Fixtures of every log format, and the conformance suite of adapters."""
