"""Check any EST or EST-coaps server from outside against the RFCs, row by row."""

from est_client.conformance.bench import Bench, BenchLimits
from est_client.conformance.registry import all_rows
from est_client.conformance.rows import Level, Outcome, Row
from est_client.conformance.runner import Result, failed, run

__all__ = [
    "Bench",
    "BenchLimits",
    "Level",
    "Outcome",
    "Result",
    "Row",
    "all_rows",
    "failed",
    "run",
]
