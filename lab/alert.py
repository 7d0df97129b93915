"""Plays an incident and follows it, station by station, to the mailbox and back.

    python3 -m lab.alert [--host sim-web-01] [--strength 95]

The simulated CPU of one host goes to 95 %. What then has to happen is watched from outside, over the same
HTTP APIs that a user has. ``follow`` does the same for a program, such as a test.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol, TextIO
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

import yaml

from lab import STATE
from lab.console import LabError

SCENARIO, ALERT, METRIC = "cpu-high", "HighCPUUsage", "custom_cpu_usage"
HEARTBEAT = 10.0
"""Seconds between two lines about one station where there is no terminal to redraw."""

LIMITS = {
    "threshold crossed": 90.0,
    "pending": 60.0,
    "firing": 90.0,  # beyond the time for which the rule waits
    "Alertmanager has it": 60.0,
    "receiver committed": 150.0,
    "message in the mailbox": 120.0,
    "value back": 90.0,
    "gone from Prometheus": 120.0,
    "receiver resolved": 240.0,
    "resolved message in the mailbox": 120.0,
}
"""Seconds that each station is given."""

_HTTP_TIMEOUT = 5.0
_opener = build_opener(ProxyHandler({}))  # the lab is on this machine: no proxy


@dataclass(frozen=True)
class Urls:
    """Where the stations answer. Each can be set by ``LAB_<NAME>_URL`` or an option."""

    simulator: str = "http://127.0.0.1:9101"
    prometheus: str = "http://127.0.0.1:9090"
    alertmanager: str = "http://127.0.0.1:9093"
    receiver: str = "http://127.0.0.1:5001"
    mailbox: str = "http://127.0.0.1:8025"


@dataclass(frozen=True)
class Tokens:
    """What the stations ask for; empty for one that asks for none."""

    simulator: str = ""
    """Of the simulator's control API."""
    receiver: str = ""
    """Of a user who may read incidents."""


TOKENS = {"simulator": "metrics_simulator_control_token", "receiver": "lab_password"}
"""Station to the variable of the lab that holds its token."""


@dataclass(frozen=True)
class Plan:
    """What is played, and how patiently it is followed."""

    host: str = "sim-web-01"
    """The simulated host."""
    strength: float = 95
    """Percent of CPU."""
    patience: float = 1
    """Factor on the time that each station is given."""
    poll: float = 0.5
    """Seconds between two looks."""


@dataclass(frozen=True)
class Station:
    """A station that was reached."""

    name: str
    seconds: float
    """Since the incident was started."""
    detail: str
    """What was seen there."""
    url: str = ""
    """Of the message, at a station where one arrived."""


@dataclass(frozen=True)
class Seen:
    """What one look at a station showed."""

    there: bool
    detail: str
    url: str = ""


class Report(Protocol):
    """Is told how the incident gets on."""

    def waiting(self, name: str, seconds: float, detail: str) -> None:
        """Tell that a station is not reached yet, so long after the start, and what is seen instead."""

    def reached(self, station: Station) -> None:
        """Tell that a station is reached."""


class Silent:
    """A report that nobody reads."""

    def waiting(self, name: str, seconds: float, detail: str) -> None:
        """Say nothing."""

    def reached(self, station: Station) -> None:
        """Say nothing."""


class ApiError(Exception):
    """An API did not give the answer that was asked for; the text says why."""


def call(method: str, url: str, body: object = None, token: str = "") -> Any:
    """Return the JSON that an API answers, ``None`` for an answer that is not JSON; raise ApiError."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    try:
        request = Request(url, data, headers, method=method)  # noqa: S310 - the lab's own URLs
        with _opener.open(request, timeout=_HTTP_TIMEOUT) as response:
            if response.headers.get_content_subtype() != "json":
                return None
            return json.load(response)
    except HTTPError as error:
        with error:
            text = error.read(2000).decode(errors="replace").strip()
        try:
            said = json.loads(text)
            text = str(said.get("error") or said.get("reason") or text)
        except (ValueError, AttributeError):
            pass
        raise ApiError(f"{url} answers {error.code}: {text or error.reason}") from None
    except (OSError, HTTPException, ValueError) as error:
        cause = error.reason if isinstance(error, URLError) else error
        reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        raise ApiError(f"{url} does not answer: {reason}") from None


@contextmanager
def _expected() -> Iterator[None]:
    """Turn the surprise at an answer of another shape into an ApiError."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ApiError(f"an API gave an unexpected answer: {type(error).__name__} {error}") from error


@dataclass
class _Follower:
    """One incident on its way."""

    urls: Urls
    tokens: Tokens
    plan: Plan
    report: Report
    stations: list[Station] = field(default_factory=list)
    rule: dict[str, Any] = field(default_factory=dict)
    started: float = 0.0
    newest: int = 0
    """Id of the receiver's newest incident before this one."""
    incident: dict[str, Any] = field(default_factory=dict)
    """The receiver's view of it."""

    # Before the start

    def check(self) -> None:
        """See that everything is there and nothing is in the way; raise LabError."""
        for name, path in {
            "simulator": "/readyz",
            "prometheus": "/-/ready",
            "alertmanager": "/-/ready",
            "receiver": "/readyz",
            "mailbox": "/healthz",
        }.items():
            try:
                call("GET", getattr(self.urls, name) + path)
            except ApiError as error:
                raise LabError(f"{error}. Is the lab up? See `make lab`.") from None
        try:
            with _expected():
                self.rule = self._find_rule()
                state = self._prometheus_state()
                self.newest = max((found["id"] for found in self._incidents()), default=0)
        except ApiError as error:
            raise LabError(str(error)) from None
        if state:
            raise LabError(
                f"{ALERT} is already {state} for {self.plan.host}: wait for its end, or take another --host."
            )

    def _find_rule(self) -> dict[str, Any]:
        groups = call("GET", f"{self.urls.prometheus}/api/v1/rules?type=alert")["data"]["groups"]
        for group in groups:
            for rule in group["rules"]:
                if rule["name"] == ALERT:
                    return dict(rule)
        raise LabError(f"Prometheus has no rule {ALERT}: see {self.urls.prometheus}/rules.")

    @property
    def _hold(self) -> float:
        """Seconds for which the rule waits before the alert fires."""
        return float(self.rule.get("duration", 0))

    # Stations

    @contextmanager
    def play(self) -> Iterator[Callable[[], None]]:
        """Start the incident; it is over when the block ends, however that happens.

        Yields what ends it before that.
        """
        # It ends by itself, should this program be killed.
        duration = sum(LIMITS.values()) * self.plan.patience + self._hold
        request = {
            "scenario": SCENARIO,
            "hosts": [self.plan.host],
            "strength": self.plan.strength,
            "duration": duration,
        }
        try:
            with _expected():
                incident = call("POST", f"{self.urls.simulator}/incidents", request, self.tokens.simulator)[
                    "id"
                ]
        except ApiError as error:
            raise LabError(f"the simulator does not play the incident: {error}") from None
        self.started = time.monotonic()
        self._reached("incident started", f"CPU of {self.plan.host} goes to {self.plan.strength:g} %")
        running = True

        def end() -> None:
            nonlocal running
            try:
                call("DELETE", f"{self.urls.simulator}/incidents/{incident}", token=self.tokens.simulator)
            except ApiError as error:
                raise LabError(f"the simulator does not end the incident: {error}") from None
            running = False
            self._reached("incident ended", f"CPU of {self.plan.host} is as usual")

        try:
            yield end
        finally:
            if running:
                # Should this fail, it ends by itself; and what was wrong before matters more.
                with suppress(ApiError):
                    call("DELETE", f"{self.urls.simulator}/incidents/{incident}", token=self.tokens.simulator)

    def wait(self, name: str, look: Callable[[], Seen], where: str) -> None:
        """Look at a station until the incident is there.

        Args:
            name: of the station.
            look: looks once.
            where: what a user should look at when it does not arrive.

        Raises:
            LabError: it did not arrive in time.

        """
        limit = LIMITS[name] * self.plan.patience + (self._hold if name == "firing" else 0)
        deadline = time.monotonic() + limit
        while True:
            try:
                with _expected():
                    seen = look()
            except ApiError as error:
                seen = Seen(False, str(error))
            if seen.there:
                self._reached(name, seen.detail, seen.url)
                return
            if time.monotonic() >= deadline:
                raise LabError(f'"{name}" not reached within {limit:.0f} s: {seen.detail}. Look at {where}.')
            self.report.waiting(name, time.monotonic() - self.started, seen.detail)
            time.sleep(self.plan.poll)

    def _reached(self, name: str, detail: str, url: str = "") -> None:
        station = Station(name, time.monotonic() - self.started, detail, url)
        self.stations.append(station)
        self.report.reached(station)

    # Looks

    def crossed(self) -> Seen:
        """Whether the alert's own expression holds for the host."""
        value, wanted = self._value(METRIC), f"the rule is {self.rule['query']}"
        over = self._value(self.rule["query"])
        if over is None:
            return Seen(False, f"{'no value' if value is None else f'{value:.1f}'}, {wanted}")
        return Seen(True, f"{over:.1f}, {wanted}")

    def back(self) -> Seen:
        """Whether it holds no more, and there is a value."""
        value = self._value(METRIC)
        quiet = value is not None and self._value(self.rule["query"]) is None
        return Seen(quiet, "no value" if value is None else f"{METRIC} is {value:.1f}")

    def pending(self) -> Seen:
        """Whether Prometheus has the alert, in any state."""
        state = self._prometheus_state()
        if not state:
            return Seen(False, "Prometheus has not evaluated the rule yet")
        return Seen(True, f"for {self._hold:g} s" if state == "pending" else "firing at once")

    def firing(self) -> Seen:
        """Whether the alert fires in Prometheus."""
        state = self._prometheus_state()
        return Seen(
            state == "firing",
            "Prometheus sends it to Alertmanager"
            if state == "firing"
            else f"{state or 'gone from Prometheus'}, the rule waits {self._hold:g} s",
        )

    def gone(self) -> Seen:
        """Whether Prometheus has the alert no more."""
        state = self._prometheus_state()
        return Seen(not state, f"still {state}" if state else "Prometheus tells Alertmanager")

    def in_alertmanager(self) -> Seen:
        """Whether Alertmanager has the alert."""
        state = self._alertmanager_state()
        return Seen(bool(state), state or "Alertmanager does not have it yet")

    def committed(self) -> Seen:
        """Whether the receiver has a new incident."""
        new = [found for found in self._incidents() if found["id"] > self.newest]
        if not new:
            return Seen(False, f"Alertmanager has it as {self._alertmanager_state() or 'gone'}")
        self.incident = new[-1]
        return Seen(True, f"incident {self.incident['id']}, {self.incident['severity']}")

    def resolved(self) -> Seen:
        """Whether the receiver has the incident as resolved."""
        self._refresh()
        status = self.incident["status"]
        return Seen(status == "resolved", f"incident {self.incident['id']} is {status}")

    def mailed(self, transition: str) -> Seen:
        """Whether the message about a transition is in the mailbox."""
        self._refresh()
        sent = {}
        states = []
        for notification in self.incident["notifications"]:
            if notification["transition"] == transition:
                sent[notification["provider_id"]] = notification
                error = f" ({notification['last_error']})" if notification.get("last_error") else ""
                states.append(f"{notification['channel']} {notification['state']}{error}")
        for message in call("GET", f"{self.urls.mailbox}/api/messages?limit=50")["messages"]:
            if message["message_id"] in sent:
                return Seen(True, message["subject"], f"{self.urls.mailbox}/messages/{message['id']}")
        return Seen(False, f"notification: {', '.join(states) or 'none'}")

    # APIs

    def _value(self, expression: str) -> float | None:
        """Return an expression's value for the host, ``None`` when it has none."""
        url = f"{self.urls.prometheus}/api/v1/query?{urlencode({'query': expression})}"
        for sample in call("GET", url)["data"]["result"]:
            if sample["metric"].get("host") == self.plan.host:
                return float(sample["value"][1])
        return None

    def _prometheus_state(self) -> str:
        for alert in call("GET", f"{self.urls.prometheus}/api/v1/alerts")["data"]["alerts"]:
            labels = alert["labels"]
            if labels["alertname"] == ALERT and labels.get("host") == self.plan.host:
                return str(alert["state"])
        return ""

    def _alertmanager_state(self) -> str:
        """Return the state with its reason, or nothing when Alertmanager does not have the alert."""
        query = urlencode({"filter": [f'alertname="{ALERT}"', f'host="{self.plan.host}"']}, doseq=True)
        for alert in call("GET", f"{self.urls.alertmanager}/api/v2/alerts?{query}"):
            status = alert["status"]
            muted = [
                f"{why} {', '.join(status[key])}"
                for why, key in (("silenced by", "silencedBy"), ("inhibited by", "inhibitedBy"))
                if status.get(key)
            ]
            return " ".join([status["state"], *muted])
        return ""

    def _incidents(self) -> list[dict[str, Any]]:
        """Return the receiver's incidents of this alert on this host, the newest first."""
        query = urlencode({"label": [f"alertname={ALERT}", f"host={self.plan.host}"]}, doseq=True)
        url = f"{self.urls.receiver}/api/v1/incidents?{query}"
        return list(call("GET", url, token=self.tokens.receiver)["incidents"])

    def _refresh(self) -> None:
        for found in self._incidents():
            if found["id"] == self.incident["id"]:
                self.incident = found


def follow(
    urls: Urls,
    tokens: Tokens,
    plan: Plan = Plan(),
    report: Report = Silent(),  # noqa: B008 - it has no state
) -> list[Station]:
    """Play the incident, follow it to the mailbox, end it, follow the resolve; return the stations.

    Args:
        urls: of the stations.
        tokens: that the stations ask for.
        plan: what is played, and how patiently it is followed.
        report: is told about each look.

    Raises:
        LabError: a station was not reached in time, or the lab is not ready for an incident. One line
            with the reason and what to look at. The incident is ended in any case.

    """
    way = _Follower(urls, tokens, plan, report)
    way.check()
    logs = "`journalctl -u {}` on its host".format
    alerts, groups = f"{urls.prometheus}/alerts", f"{urls.alertmanager}/#/alerts"
    with way.play() as end:
        way.wait("threshold crossed", way.crossed, f"{urls.prometheus}/targets (is pushgateway up?)")
        way.wait("pending", way.pending, f"{urls.prometheus}/rules")
        way.wait("firing", way.firing, alerts)
        way.wait("Alertmanager has it", way.in_alertmanager, f"{urls.prometheus}/status")
        way.wait("receiver committed", way.committed, f"{groups} and {logs('alert_receiver')}")
        way.wait("message in the mailbox", lambda: way.mailed("firing"), logs("alert_dispatcher"))
        end()
        way.wait("value back", way.back, logs("metrics_simulator"))
        way.wait("gone from Prometheus", way.gone, alerts)
        way.wait("receiver resolved", way.resolved, f"{groups} and {logs('alert_receiver')}")
        way.wait("resolved message in the mailbox", lambda: way.mailed("resolved"), logs("alert_dispatcher"))
    return way.stations


class Terminal:
    """A report for people: a table with a live line below it, or plain lines where there is no terminal."""

    def __init__(self, out: TextIO, environ: Mapping[str, str] = os.environ) -> None:
        """Look at what ``out`` can show."""
        self._out = out
        self._live = out.isatty()
        self._colours = self._live and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        self._last = 0.0
        self._said = 0.0
        self._waiting_for = ""

    def waiting(self, name: str, seconds: float, detail: str) -> None:
        """Redraw the live line; without a terminal, print a line now and then."""
        if self._live:
            text = f"{seconds:7.1f} s           … {name}: {detail}"[: _width() - 1]
            self._write(f"\r\x1b[K{self._paint('2', text)}")
            return
        if name != self._waiting_for:
            self._waiting_for, self._said = name, seconds
        if seconds - self._said >= HEARTBEAT:
            self._said = seconds
            self._write(f"{seconds:7.1f} s           ... {name}: {detail}\n")

    def reached(self, station: Station) -> None:
        """Print the station."""
        delta = f"+{station.seconds - self._last:.1f} s"
        self._last = station.seconds
        name = self._paint("32", f"{station.name:32}")
        clear = "\r\x1b[K" if self._live else ""
        self._write(f"{clear}{station.seconds:7.1f} s {delta:>9} {name}{station.detail}\n")

    def finish(self, stations: list[Station]) -> None:
        """Print where the messages are."""
        self._write("\n")
        for station in stations:
            if station.url:
                self._write(f"{self._paint('1', station.detail)}\n    {station.url}\n")

    def abort(self) -> None:
        """Leave the live line, so that what follows starts on a line of its own."""
        if self._live:
            self._write("\r\x1b[K")

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colours else text

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def _width() -> int:
    try:
        return os.get_terminal_size().columns or 80
    except OSError:
        return 80


def read_tokens(path: Path) -> Tokens:
    """Return the stations' tokens from a file of secrets (YAML); raise LabError."""
    try:
        secrets = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LabError(f"cannot read the lab's secrets in {path}: {error.strerror}. Is the lab up?") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise LabError(f"{path} is not valid YAML") from None  # and no word of what is in it
    tokens = {}
    for station, variable in TOKENS.items():
        token = secrets.get(variable) if isinstance(secrets, dict) else None
        if not isinstance(token, str) or not token:
            raise LabError(f"{path} has no {variable}")
        tokens[station] = token
    return Tokens(**tokens)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m lab.alert", description=__doc__.partition("\n")[0])
    parser.add_argument("--host", default="sim-web-01", help="simulated host (%(default)s)")
    parser.add_argument("--strength", type=float, default=95, help="percent of CPU (%(default)s)")
    parser.add_argument("--patience", type=float, default=1, help="factor on all time-outs (%(default)s)")
    parser.add_argument("--poll", type=float, default=0.5, help="seconds between two looks (%(default)s)")
    parser.add_argument(
        "--secrets",
        type=Path,
        default=STATE / "secrets.yml",
        help=f"YAML file with {' and '.join(TOKENS.values())} (.lab/secrets.yml)",
    )
    defaults = Urls()
    for name in vars(defaults):
        variable = f"LAB_{name.upper()}_URL"
        parser.add_argument(
            f"--{name}",
            metavar="URL",
            default=os.environ.get(variable) or getattr(defaults, name),
            help=f"URL of the {name}, or ${variable} (%(default)s)",
        )
    options = parser.parse_args(argv)
    terminal = Terminal(sys.stdout)
    try:
        stations = follow(
            Urls(**{name: getattr(options, name).rstrip("/") for name in vars(defaults)}),
            read_tokens(options.secrets),
            plan=Plan(options.host, options.strength, options.patience, options.poll),
            report=terminal,
        )
    except LabError as error:
        terminal.abort()
        print(f"lab-alert: {error}", file=sys.stderr)  # noqa: T201 - the command's output
        return 1
    except KeyboardInterrupt:
        terminal.abort()
        print("lab-alert: stopped, the incident is ended", file=sys.stderr)  # noqa: T201 - the same
        return 130
    terminal.finish(stations)
    return 0


if __name__ == "__main__":
    sys.exit(main())
