"""Stores: device registry and enrollment ledger."""
