"""The lab: Fleetwatch on real systemd hosts that run as containers on this machine.

Everything here but ``alert.py`` and ``locustfile.py`` uses the standard library only, because it has to run
before the virtual environment exists. Entry points:

- ``python3 -m lab up|down|status``: the lab itself (``make lab`` and its relatives)
- ``python3 -m lab.hosts``: hosts for any other purpose, such as a Molecule scenario
- ``python3 -m lab.prepare``: what the Makefile's other targets need on this machine
- ``python3 -m lab.vagrant`` and ``lab.box``: the lab on virtual machines, and the box they are made from
"""

import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 (older ones can still read this far)
    sys.exit("Fleetwatch needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ...")

ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""

STATE = ROOT / ".lab"
"""The lab's state and secrets: gone after ``make lab-down``."""

VM_STATE = ROOT / ".vagrant" / "lab"
"""The same for the lab on virtual machines."""

CACHE = ROOT / ".cache"
"""What can be built or downloaded again: gone after ``make clean``."""

VENV = ROOT / ".venv"
"""The virtual environment."""
