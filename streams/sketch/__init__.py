"""Records to rows: the sketcher, its fast path, columns, identities."""
