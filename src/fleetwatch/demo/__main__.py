"""``python3 -m fleetwatch.demo api|worker|check|behaviour``."""

from __future__ import annotations

import sys

from fleetwatch.demo.cli import main

if __name__ == "__main__":
    sys.exit(main())
