"""Private keys that sign certificates."""
