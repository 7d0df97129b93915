"""The how-to about dashboards tells what works."""

from __future__ import annotations

import json
import re
from pathlib import Path

from fleetwatch.dashboards import files, style
from fleetwatch.dashboards.lint import problems

PAGE = (files.ROOT / "docs" / "how-to" / "dashboards.md").read_text(encoding="utf-8")


def test_the_example_keeps_the_rules(tmp_path: Path) -> None:
    (name, text), *more = re.findall(r"```python\n# (roles/\S+)\n(.*?)```", PAGE, flags=re.DOTALL)
    assert not more
    source = tmp_path / name
    source.parent.mkdir(parents=True)
    source.write_text(text)
    assert list(files.write(tmp_path)) == [
        "wrote roles/haproxy_exporter/monitoring/dashboards/fleetwatch-haproxy.json"
    ]
    written = tmp_path / "roles/haproxy_exporter/monitoring/dashboards/fleetwatch-haproxy.json"
    assert problems(json.loads(written.read_text()), {"fleetwatch-host"}) == []
    assert f"writes {written.relative_to(tmp_path)}" in PAGE


def test_every_kind_of_panel_is_told() -> None:
    for name in ("stat", "timeseries", "table", "bargauge", "gauge", "timeline", "heatmap", "quantile"):
        assert callable(getattr(style, name))
        assert f"`{name}" in PAGE, name


def test_all_our_dashboards_are_told() -> None:
    for path in files.kept():
        assert json.loads(path.read_text(encoding="utf-8"))["title"] in PAGE, path.name


def test_variables_of_grafana_exist() -> None:
    defaults = (files.ROOT / "roles" / "grafana" / "defaults" / "main.yml").read_text(encoding="utf-8")
    for name in set(re.findall(r"`(grafana_\w+)`", PAGE)):
        assert f"\n{name}:" in defaults, name
