"""What registry and ledger hold true, written once for every database.

Each function runs inside a transaction that its caller began, and in SQL that SQLite >= 3.40 and
PostgreSQL >= 13 take alike:

- ``?`` for each value; no ``?`` anywhere else, not even in a string.
- ``insert`` for the number of a new row, ``RETURNING`` for rows that are changed; ``IS NOT
  DISTINCT FROM`` where either side may be NULL; no ``rowid``, no ``INSERT OR``.
- A comparison is no number: ``CASE WHEN a = b THEN 1 ELSE 0 END`` to count or compare it.
- Text has no NUL character, which PostgreSQL does not store.

- A read is one statement, since reads have no transaction: each statement sees what was committed
  before it.

Only one transaction writes at a time, in either database and over all processes; a rule may
read, decide and write without a thought of others.
"""
