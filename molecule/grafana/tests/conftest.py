"""Says at the head of the tests what they are run against."""

from __future__ import annotations

import json
import os
from pathlib import Path

FOUND = json.loads((Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "grafana.json").read_text())


def pytest_report_header() -> str:
    """Return the line."""
    if FOUND["real"]:
        return f"The whole scenario runs with Grafana {FOUND['grafana_version']}."
    return "No GRAFANA_RELEASE: a stand-in answers, not Grafana; tests that need Grafana are skipped."
