"""Plays hosts and incidents that never happened: pushes them to the Pushgateway or serves them.

A value is a function of seed, host, metric and time, so two simulators with the same settings agree, and
so do a simulator and itself after a restart. ``model`` has the quiet life of a host, ``scenarios`` what can
go wrong, ``fleet`` puts both together and keeps the little state there is.
"""

SERVICE = "metrics_simulator"
"""Name of the service: its unit, its Prometheus job, the prefix of its settings and own metrics."""
