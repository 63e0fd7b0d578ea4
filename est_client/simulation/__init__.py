"""Simulated devices, fleets and links."""
