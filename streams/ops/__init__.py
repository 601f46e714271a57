"""What operators do: orders, dead letters, keys, archives, diagnosis."""
