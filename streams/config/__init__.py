"""One typed configuration: sections, loading, and the keys as a list."""
