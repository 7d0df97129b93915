"""Benchmarks: ``make bench-<name>`` prints what it measures, under which conditions, and last the figure.

The last line holds the figure and its goal; the exit code is 1 when the goal is missed.
"""

import signal


def end_properly() -> None:
    """Clean up on SIGTERM as on an interrupt from the terminal."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def say(line: str = "") -> None:
    """Print a line at once."""
    print(line, flush=True)  # noqa: T201 - the command's output


def verdict(figures: str, *, reached: bool) -> int:
    """Print the last line, the figures with their goals, and return the exit code."""
    say(f"{figures} -> {'reached' if reached else 'MISSED'}")
    return 0 if reached else 1
