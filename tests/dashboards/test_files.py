"""The JSON of the dashboards, and what writes it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fleetwatch.dashboards import files
from fleetwatch.dashboards.__main__ import main
from fleetwatch.dashboards.files import DashboardError

UIDS = {
    "fleetwatch-alert-receiver",
    "fleetwatch-alertmanager",
    "fleetwatch-alerts",
    "fleetwatch-first-system",
    "fleetwatch-fleet",
    "fleetwatch-host",
    "fleetwatch-metrics-collector",
    "fleetwatch-prometheus",
    "fleetwatch-pushgateway",
    "fleetwatch-simulator",
    "fleetwatch-slo",
}
SOURCE = """
from fleetwatch.dashboards.style import dashboard, query, row, stat, units

def dashboards():
    panel = stat("Up", "Targets that are up.", query("count(up)", "up"), unit=units.Short)
    return [dashboard("fleetwatch-{name}", "{name}", "A test.", row("All", panel))]
"""


def _component(root: Path, name: str, uid: str | None = None) -> Path:
    source = root / "roles" / name / files.SOURCE
    source.parent.mkdir(parents=True)
    source.write_text(SOURCE.replace("{name}", uid or name))
    return source


def test_committed_files_are_what_the_python_says() -> None:
    wanted = files.texts()
    assert files.kept() == set(wanted), "run make dashboards"
    stale = [path.name for path, text in wanted.items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run make dashboards"


def test_dashboards_that_are_promised() -> None:
    assert {path.stem for path in files.kept()} >= UIDS


def test_no_host_name_of_a_site_is_in_them() -> None:
    for path in files.kept():
        assert not re.findall(r"https?://", path.read_text(encoding="utf-8")), path.name


def test_write_adds_changes_and_removes(tmp_path: Path) -> None:
    source = _component(tmp_path, "one")
    folder = source.parent / "dashboards"
    assert list(files.write(tmp_path)) == ["wrote roles/one/monitoring/dashboards/fleetwatch-one.json"]
    assert list(files.write(tmp_path)) == []
    source.write_text(SOURCE.replace("{name}", "other"))
    assert list(files.write(tmp_path)) == [
        "wrote roles/one/monitoring/dashboards/fleetwatch-other.json",
        "removed roles/one/monitoring/dashboards/fleetwatch-one.json",
    ]
    source.unlink()
    assert list(files.write(tmp_path)) == ["removed roles/one/monitoring/dashboards/fleetwatch-other.json"]
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_same_bytes_in_another_process() -> None:
    """The order of a set differs from run to run; that of the files must not."""
    program = "from fleetwatch.dashboards.files import texts; print(''.join(texts().values()))"
    outputs = {
        subprocess.run(  # noqa: S603 - this very Python
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(files.ROOT / "src")},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_two_with_one_uid(tmp_path: Path) -> None:
    _component(tmp_path, "one", "same")
    _component(tmp_path, "two", "same")
    with pytest.raises(DashboardError, match=r"two/.*: uid fleetwatch-same is that of .*one/"):
        files.texts(tmp_path)
    assert files.kept(tmp_path) == set()


def test_no_function(tmp_path: Path) -> None:
    _component(tmp_path, "one").write_text("dashboard = 1\n")
    with pytest.raises(DashboardError, match=r"has no function dashboards\(\); add one"):
        files.texts(tmp_path)


def test_command_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise DashboardError("roles/x: is wrong")

    monkeypatch.setattr("fleetwatch.dashboards.__main__.write", fail)
    assert main() == 1
    assert capsys.readouterr().err == "dashboards: roles/x: is wrong\n"


@pytest.mark.parametrize("module", ["fleetwatch.dashboards", "fleetwatch.dashboards.queries"])
def test_reading_needs_no_sdk(module: str) -> None:
    program = f"import sys; import {module}; assert not any('grafana' in name for name in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)  # noqa: S603 - this very Python


def test_services_do_without() -> None:
    """The wheel of the services has no dashboards."""
    services = files.ROOT / "src" / "fleetwatch"
    for path in services.rglob("*.py"):
        if path.parent.name != "dashboards":
            assert "fleetwatch.dashboards" not in path.read_text(encoding="utf-8"), path
    assert 'exclude = ["src/fleetwatch/dashboards"]' in (files.ROOT / "pyproject.toml").read_text()
