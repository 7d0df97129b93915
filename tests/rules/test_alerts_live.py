"""The alerts of Prometheus on itself fire in the real Prometheus, when what they are about really happens.

The unit tests beside the rules make the series up. A name that Prometheus does not have, or not any more,
would pass there, and the alert would be dead for ever.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import tools
from tests.common.services import answers, call, free_port, wait_until
from tests.rules.test_alerts import alert_variables, render

pytestmark = pytest.mark.slow

BROKEN_RULES = {
    "groups": [
        {
            "name": "broken",
            "rules": [
                {
                    "alert": "Text",
                    "expr": "vector(1)",
                    "annotations": {"summary": '{{ template "missing" }}'},
                },
                {
                    "record": "twice",
                    "expr": 'label_replace(vector(1), "a", "b", "", "") + on () group_left up',
                },
            ],
        }
    ]
}
EXPECTED = {
    ("PrometheusNotConnectedToAlertmanager", ""),
    ("PrometheusNotificationsDropped", ""),
    ("PrometheusRuleFailures", ""),
    ("PrometheusScrapeLimitHit", "body_size_limit"),
    ("PrometheusScrapeLimitHit", "label_limit"),
    ("PrometheusScrapeLimitHit", "sample_limit"),
    ("PrometheusTargetDiscoveryFailing", ""),
    ("PrometheusTargetFilesUnreadable", ""),
    ("PrometheusTargetLimitHit", ""),
    ("PrometheusTemplateFailures", ""),
    ("TargetAbsent", ""),
    ("TargetDown", ""),
    ("TargetUnreachable", ""),
    ("Watchdog", ""),
}


def _job(name: str, *ports: int, **settings: Any) -> dict[str, Any]:
    targets = {"targets": [f"127.0.0.1:{port}" for port in ports], "labels": {"host": "mon1"}}
    return {"job_name": name, "static_configs": [targets], **settings}


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[str]:
    """Run a Prometheus in which much goes wrong; give its URL."""
    if not tools.complete():
        pytest.fail("Prometheus is not there: `make tools` fetches it", pytrace=False)
    at_once = {name: "0s" for name in alert_variables("prometheus") if name.endswith("_for")}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(render("prometheus", **at_once)))
    (tmp_path / "broken.yml").write_text(yaml.safe_dump(BROKEN_RULES))
    (tmp_path / "targets.json").write_text("[not JSON")
    port, closed = free_port(), free_port()
    jobs = [
        _job("itself", port),
        _job("down", closed),
        _job("samples", port, sample_limit=1),
        _job("body", port, body_size_limit="10B"),
        _job("labels", port, label_limit=1),
        {"job_name": "files", "file_sd_configs": [{"files": ["targets.json"], "refresh_interval": "1s"}]},
        {
            "job_name": "http",
            "http_sd_configs": [{"url": f"http://127.0.0.1:{closed}", "refresh_interval": "1s"}],
        },
    ]
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml", "broken.yml"],
        "scrape_configs": jobs,
    }
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    command = [
        str(tools.BIN / "prometheus"),
        f"--config.file={file}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-lifecycle",  # for /-/reload
    ]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603 - a program that was found
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: answers(f"{url}/-/ready"), 30, "Prometheus answers")
        # Too many targets are counted only when they are taken over, and only an increase fires.
        wait_until(lambda: ("TargetDown", "") in _firing(url), 30, "it has scraped itself")
        jobs.append(_job("many", port, closed, target_limit=1))
        file.write_text(yaml.safe_dump(config))
        assert call("POST", f"{url}/-/reload").status == 200
        yield url
    finally:
        process.kill()
        process.wait(10)


def _firing(url: str) -> set[tuple[str, str]]:
    """Return the names of the alerts that fire, with the limit that some are about."""
    found = call("GET", f"{url}/api/v1/alerts").json["data"]["alerts"]
    firing = [alert["labels"] for alert in found if alert["state"] == "firing"]
    return {(labels["alertname"], labels.get("limit", "")) for labels in firing}


def test_what_really_goes_wrong_makes_the_alerts_fire(prometheus: str) -> None:
    deadline = time.monotonic() + 60
    while (missing := EXPECTED - _firing(prometheus)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not missing
