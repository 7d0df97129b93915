"""Dashboards as code: the house style, what writes the JSON of Grafana, and what checks it.

A component's dashboards are in ``roles/<component>/monitoring/dashboard.py``, built with :mod:`.style`.
``make dashboards`` (``python -m fleetwatch.dashboards``) writes them as JSON beside it, and that JSON is
committed and shipped: no host needs Python or the SDK for its dashboards. This package is for developers only
and is not part of the wheel of the services.
"""
