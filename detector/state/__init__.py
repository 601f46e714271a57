"""Stored state: packing with bounds, migrations, erasure."""
