"""A run as a page for people: one HTML file with its plots in it."""

from est_client.simulation.report.page import write_report

__all__ = ["write_report"]
