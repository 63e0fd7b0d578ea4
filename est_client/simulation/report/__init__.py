"""A run as a page for people: one HTML file with its plots in it."""

from est_client.simulation.report.page import prepare_report, write_report

__all__ = ["prepare_report", "write_report"]
