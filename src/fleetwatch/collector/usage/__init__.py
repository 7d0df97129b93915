"""The usage API: what hosts use of CPU, memory and disk, as plain numbers from what Prometheus has stored.

``params`` checks a question, ``promql`` writes it for Prometheus, ``prometheus`` asks, ``answers`` computes
averages and streams points, ``api`` and ``page`` show them. ``forward`` passes alerts on to the receiver.
"""
