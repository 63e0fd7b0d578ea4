"""The enrollment service: one coroutine per EST operation."""
