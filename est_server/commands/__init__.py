"""The commands of ``est-server``, one module each: its options, and what it does."""
