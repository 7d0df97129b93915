"""Reads the host by psutil for Prometheus to scrape; ``usage`` answers questions about what is stored."""

SERVICE = "metrics_collector"
"""Name of the service: its unit, its Prometheus job, the prefix of its settings and own metrics."""
