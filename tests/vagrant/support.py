"""What the tests on VMs share: the alert path as users see it from outside, and what is done to a VM."""

from __future__ import annotations

import json
import shlex
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml
from support import wait_for
from testinfra.host import Host

from lab.alert import ApiError, Tokens, Urls, call

ROOT = Path(__file__).resolve().parents[2]

PATIENCE = 300
"""Seconds for what takes some on metal: emulated VMs are up to 30 times slower. Who passes does not wait."""

FAILED_TRIES = 'sum(alertmanager_notification_requests_failed_total{integration="webhook"})'
"""How often Alertmanager tried to send alerts to the receiver, and could not."""
COMMITS_FAILED = "alert_receiver_commit_failures_total"

UNITS = {
    "monitor": ["prometheus", "alertmanager", "pushgateway", "metrics_simulator", "node_exporter"],
    "receiver": ["alert_receiver", "alert_dispatcher", "lab_mailbox", "node_exporter"],
}
EVERY_UNIT = [(name, unit) for name, units in UNITS.items() for unit in units]


@dataclass(frozen=True)
class AlertPath:
    """The stations of an alert, asked over the APIs that users have."""

    urls: Urls
    secrets: dict[str, str]
    """Variable of the lab to its secret."""

    @property
    def tokens(self) -> Tokens:
        """Return what ``lab.alert.follow`` asks for."""
        return Tokens(self.secrets["metrics_simulator_control_token"], self.secrets["lab_password"])

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the result of an instant query to Prometheus."""
        answer = self._ask("GET", f"{self.urls.prometheus}/api/v1/query?{urlencode({'query': expression})}")
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def value(self, expression: str) -> float:
        """Return the value of a query that has one result; raise AssertionError when it has none yet."""
        found = self.query(expression)
        assert len(found) == 1, f"{expression} has {len(found)} results"
        return float(found[0]["value"][1])

    def now(self, expression: str) -> float:
        """Return the value of a query as soon as it has one: on a slow machine a scrape may fail."""
        return wait_for(lambda: [self.value(expression)], PATIENCE)[0]

    def all_up(self) -> bool:
        """Return whether Prometheus reaches all its targets."""
        up = self.query("up")
        return bool(up) and all(sample["value"][1] == "1" for sample in up)

    def fires(self, alert: str, host: str) -> bool:
        """Return whether an alert of a host fires in Prometheus."""
        return bool(self.query(f'ALERTS{{alertname="{alert}",host="{host}",alertstate="firing"}}'))

    def muted(self, alert: str, host: str) -> bool:
        """Return whether Alertmanager has an alert of a host and keeps it back."""
        query = urlencode({"filter": [f'alertname="{alert}"', f'host="{host}"']}, doseq=True)
        found = self._ask("GET", f"{self.urls.alertmanager}/api/v2/alerts?{query}")
        return bool(found) and all(each["status"]["state"] == "suppressed" for each in found)

    def incidents(self, alert: str, status: str = "", **labels: str) -> list[dict[str, Any]]:
        """Return the receiver's incidents of an alert, the newest first."""
        wanted = [f"{name}={value}" for name, value in {"alertname": alert, **labels}.items()]
        query = urlencode({"label": wanted, **({"status": status} if status else {})}, doseq=True)
        url = f"{self.urls.receiver}/api/v1/incidents?{query}"
        found: list[dict[str, Any]] = self._ask("GET", url, token=self.secrets["lab_password"])["incidents"]
        return found

    def mails(self, text: str) -> list[dict[str, Any]]:
        """Return the messages that hold a text and say that something fires, not that it ended."""
        return [mail for mail in self._messages(text) if "[RESOLVED]" not in mail["subject"]]

    def ends(self, text: str) -> list[dict[str, Any]]:
        """Return the messages that hold a text and say that it is over."""
        return [mail for mail in self._messages(text) if "[RESOLVED]" in mail["subject"]]

    def _messages(self, text: str) -> list[dict[str, Any]]:
        answer = self._ask("GET", f"{self.urls.mailbox}/api/messages?{urlencode({'q': text})}")
        found: list[dict[str, Any]] = answer["messages"]
        return found

    def wait_mailed(self, incident: dict[str, Any], transition: str) -> None:
        """Wait until the message about the start or the end of an incident is in the mailbox."""

        def there() -> bool:
            (found,) = [
                each
                for each in self.incidents(incident["labels"]["alertname"])
                if each["id"] == incident["id"]
            ]
            sent = {
                each["provider_id"] for each in found["notifications"] if each["transition"] == transition
            }
            messages = self._messages("")
            return bool(sent & {message["message_id"] for message in messages})

        wait_for(there, PATIENCE)

    def newest(self, alert: str, **labels: str) -> int:
        """Return the id of the newest incident of an alert, 0 when there is none."""
        return max((found["id"] for found in self.incidents(alert, **labels)), default=0)

    def wait_fired(self, alert: str, host: str, after: int) -> dict[str, Any]:
        """Wait until an alert of a host is a new incident and was mailed; return the incident.

        after: id of the newest incident before.
        """

        def new() -> list[dict[str, Any]]:
            return [each for each in self.incidents(alert, host=host) if each["id"] > after]

        incident = wait_for(new, PATIENCE)[0]
        self.wait_mailed(incident, "firing")
        return incident

    def wait_resolved(self, incident: dict[str, Any]) -> None:
        """Wait until an incident is resolved and that was mailed."""
        self.wait_mailed(incident, "resolved")
        (found,) = [
            each for each in self.incidents(incident["labels"]["alertname"]) if each["id"] == incident["id"]
        ]
        assert found["status"] == "resolved"

    @contextmanager
    def firing(self, name: str, dump: str = "") -> Iterator[None]:
        """Give Alertmanager an alert, which ends with the block.

        An end that is in the future for its clock, which may be a second behind, would be ignored.

        dump: a further annotation, of any size.
        """
        ends = datetime.now(UTC) - timedelta(minutes=1)
        starts = ends - timedelta(seconds=1)
        self._tell(name, starts, starts + timedelta(hours=1), dump)
        try:
            yield
        finally:
            self._tell(name, starts, ends, dump)

    def _tell(self, name: str, starts: datetime, ends: datetime, dump: str) -> None:
        alert = {
            "labels": {"alertname": name, "severity": "critical"},
            "annotations": {"summary": name, **({"dump": dump} if dump else {})},
            "startsAt": starts.isoformat(),
            "endsAt": ends.isoformat(),
        }
        self._ask("POST", f"{self.urls.alertmanager}/api/v2/alerts", [alert])

    @staticmethod
    def _ask(method: str, url: str, body: object = None, token: str = "") -> Any:
        """Call an API until it answers: a machine that is busy may take longer than one call waits."""
        return wait_for(lambda: [call(method, url, body, token)], 60)[0]

    def post(self, name: str, dump: str = "") -> None:
        """Post an alert to the receiver as Alertmanager does."""
        self._ask(
            "POST",
            f"{self.urls.receiver}/alerts",
            posted(name, dump),
            self.secrets["alert_receiver_webhook_token"],
        )


def posted(name: str, dump: str = "") -> dict[str, Any]:
    """Return the body of a request to the receiver with one alert."""
    annotations = {"summary": name, **({"dump": dump} if dump else {})}
    labels = {"alertname": name, "severity": "critical"}
    return {"alerts": [{"status": "firing", "labels": labels, "annotations": annotations}]}


def new_name() -> str:
    """Return the name of an alert that there was never before."""
    return f"Test{uuid.uuid4().hex[:12]}"


def boot_id(host: Host) -> str:
    """Return what is another after each start of the kernel."""
    return str(host.check_output("cat /proc/sys/kernel/random/boot_id"))


def write(host: Host, path: str, text: str) -> None:
    """Write a file that only root can read."""
    host.check_output(f"umask 077; printf %s {shlex.quote(text)} > {path}")


def properties(host: Host, unit: str, *names: str) -> dict[str, str]:
    """Return properties of a unit, all of them when none is named."""
    chosen = f"--property={','.join(names)}" if names else ""
    lines = host.check_output(f"systemctl show {chosen} {unit}").splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


@contextmanager
def nftables(host: Host, rules: str) -> Iterator[None]:
    """Have the kernel filter by a table of its own for a while; it comes before other tables.

    rules: what is in ``table inet fleetwatch_test``.
    """
    write(host, "/run/fleetwatch-test.nft", f"table inet fleetwatch_test {{\n{rules}\n}}\n")
    host.check_output("nft --file /run/fleetwatch-test.nft")
    try:
        yield
    finally:
        host.check_output("nft delete table inet fleetwatch_test; rm /run/fleetwatch-test.nft")


class Clock:
    """The clock of a VM, which is set by this."""

    def __init__(self, host: Host) -> None:
        """Take the clock as it is for right, measured by the one that nobody can set."""
        self._host = host
        self._right = self._booted()

    def _booted(self) -> float:
        """Return when the machine was started, by its clock."""
        started = "print(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME))"
        return float(self._host.check_output(f"python3 -c 'import time; {started}'"))

    @property
    def offset(self) -> float:
        """How wrong it is, in seconds."""
        return self._booted() - self._right

    def set(self, offset: float) -> None:
        """Set it wrong by so many seconds; 0 sets it right. The kernel then takes it for unsynchronised."""
        now = f"{self._right + offset!r} + time.clock_gettime(time.CLOCK_BOOTTIME)"
        self._host.check_output(f"python3 -c 'import time; time.clock_settime(time.CLOCK_REALTIME, {now})'")

    def vouch(self) -> None:
        """Tell the kernel that the clock is right, as a time service does once it has set it."""
        write(self._host, "/run/fleetwatch-vouch.py", _VOUCH)
        self._host.check_output("python3 /run/fleetwatch-vouch.py; rm /run/fleetwatch-vouch.py")


# struct timex of adjtimex(2): modes, then offset, freq, maxerror, esterror as longs, then status.
_VOUCH = """
import ctypes, struct
ADJ_MAXERROR, ADJ_ESTERROR, ADJ_STATUS = 4, 8, 16
modes = ADJ_MAXERROR | ADJ_ESTERROR | ADJ_STATUS
timex = ctypes.create_string_buffer(struct.pack("@IlllliL", modes, 0, 0, 1000, 1000, 0, 0), 256)
libc = ctypes.CDLL(None, use_errno=True)
if libc.adjtimex(timex) < 0:
    raise OSError(ctypes.get_errno(), "adjtimex")
"""


_DROP_IN = """
[Service]
Type=oneshot
Restart=no
User=
StateDirectory=
CacheDirectory=
ReadWritePaths=
ExecStartPre=
ExecStart=
ExecStart=/usr/bin/python3 -c "import sys; exec(sys.stdin.read())"
StandardInput=file:/run/fleetwatch-probe.py
StandardOutput=truncate:/run/fleetwatch-probe.json
"""


def sandboxed(host: Host, units: list[str], program: str) -> dict[str, Any]:
    """Run a Python program as root in the sandbox of each unit; return the JSON that it prints there.

    The sandbox is that of the unit's own file. Only what is run, and as whom, is another: root, to whom the
    permissions of files say nothing, so that it is the sandbox alone that refuses.

    units: the unit "" is none, so it has no sandbox.
    """
    folder = "/run/systemd/system"
    make, run = [], []
    for unit in units:
        probe = f"fleetwatch-probe-{unit or 'free'}"
        text = f"systemctl cat {unit}" if unit else "echo [Service]"
        drop_in = shlex.quote(_DROP_IN)
        make.append(f"{text} > {folder}/{probe}.service && mkdir -p {folder}/{probe}.service.d")
        make.append(f"printf %s {drop_in} > {folder}/{probe}.service.d/probe.conf")
        run.append(f"systemctl start {probe} && cat /run/fleetwatch-probe.json")
    write(host, "/run/fleetwatch-probe.py", program)
    try:
        # Few commands: each is a round trip to a slow machine, and so is each reload of systemd.
        answer = host.run(" && ".join([*make, "systemctl daemon-reload", *run]))
        assert answer.rc == 0, answer.stderr + host.run("journalctl -n 30 -u 'fleetwatch-probe*'").stdout
        return dict(zip(units, map(json.loads, answer.stdout.splitlines()), strict=True))
    finally:
        host.run(
            f"rm -rf {folder}/fleetwatch-probe* /run/fleetwatch-probe*; "
            "systemctl reset-failed 'fleetwatch-probe*'; systemctl daemon-reload"
        )


def documented_ports() -> list[tuple[str, str, str]]:
    """Return variable, port with protocol, and who connects, of each line of the page of ports."""
    page = (ROOT / "docs/reference/ports.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.splitlines()
        if line.startswith("| ")
    ]
    return [(variable.strip("`"), port, who) for _, port, variable, who in rows if variable.startswith("`")]


def owner(variable: str) -> str:
    """Return the role that a variable belongs to."""
    for path in sorted((ROOT / "roles").glob("*/defaults/main.yml")):
        if variable in (yaml.safe_load(path.read_text(encoding="utf-8")) or {}):
            return path.parts[-3]
    raise AssertionError(f"no role has the variable {variable}")


__all__ = ["ApiError", "wait_for"]
