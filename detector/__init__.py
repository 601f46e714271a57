"""Decisions: a pure fold from frames to events. Start at engine.py."""

__version__ = "0.1.0"
