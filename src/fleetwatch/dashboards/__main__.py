"""``python -m fleetwatch.dashboards`` (``make dashboards``): writes the JSON of all dashboards."""

from __future__ import annotations

import sys

from .files import DashboardError, write


def main() -> int:
    """Write the dashboards, and say which changed."""
    try:
        changes = list(write())
    except DashboardError as error:
        print(f"dashboards: {error}", file=sys.stderr)  # noqa: T201 - the command's output
        return 1
    print("\n".join(changes) or "dashboards: nothing changed")  # noqa: T201 - the same
    return 0


if __name__ == "__main__":
    sys.exit(main())
