"""Stores: device registry and enrollment ledger, over SQLite or PostgreSQL."""
