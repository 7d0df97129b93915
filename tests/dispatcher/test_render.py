from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from fleetwatch.alerting.settings import AlertingSettings
from fleetwatch.dispatcher.render import (
    MAX_HTML,
    MAX_SMS,
    MAX_SMS_UNICODE,
    MAX_SUBJECT,
    TEMPLATES,
    BrokenTemplateError,
    Renderer,
    clickable,
    duration,
    one_line,
    silence_url,
    slack_text,
    sms_text,
)
from fleetwatch.dispatcher.sample import sample
from fleetwatch.receiver import cli
from fleetwatch.store import Incident, Notification

NOW = datetime(2026, 1, 2, 4, 0, 0, tzinfo=UTC)
HOSTILE = "</td><script>alert(1)</script>{{ 7*7 }}{% raw %}<!channel> & <https://evil.example|ok> \"'\\"


def settings(**values: Any) -> AlertingSettings:
    channel = {"name": "hook", "type": "webhook", "url": "https://example.org"}
    return AlertingSettings.model_validate(
        {"channels": [channel], "external_url": "https://alerts.example.org/am"} | values
    )


def renderer(**values: Any) -> Renderer:
    return Renderer(settings(**values), clock=lambda: NOW)


def row(transition: str = "firing", **fields: Any) -> Notification:
    """Return a notification; ``sequence`` and ``episode`` are its own, the other fields its incident's."""
    own = {name: fields.pop(name) for name in ("sequence", "episode", "traceparent") if name in fields}
    resolved = transition == "resolved"
    values = {
        "id": 7,
        "fingerprint": "f1",
        "starts_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "received_at": datetime(2026, 1, 2, 3, 5, 0, tzinfo=UTC),
        "ends_at": datetime(2026, 1, 2, 3, 59, 6, tzinfo=UTC) if resolved else None,
        "status": "resolved" if resolved else "firing",
        "severity": "warning",
        "summary": "Disk full",
        "labels": {"alertname": "DiskFull", "host": "node1"},
        "annotations": {},
        "generator_url": "https://prom.example.org/graph?g0.expr=a%3Db&g0.tab=1",
        "external_url": "https://am.example.org",
    }
    incident = Incident(**values | fields)
    return Notification(incident=incident, transition=transition, channel="hook", route="all", **own)


def part(name: str, *rows: Notification, **values: Any) -> str:
    return renderer(**values).message(rows or [row()], [name]).parts[name]


class Page(HTMLParser):
    """Reads a mail strictly: each tag closed, in order."""

    VOID = ("meta", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.links: dict[str, str] = {}
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if self._open and self._open[-1] == "a":
            self.links[data] = str(self.tags[-1][1]["href"])


def test_a_text_mail() -> None:
    text = part("mail.txt", row(annotations={"description": "Two\nlines", "value": "97 %", "note": "x"}))
    assert text == (
        "[WARNING] Disk full\n"
        "\n"
        "Two\nlines\n"
        "\n"
        "Host:         node1\n"
        "Since:        Fri 2 Jan 2026, 03:04:05 UTC (55 min 55 s ago)\n"
        "Value:        97 %\n"
        "\n"
        "Links\n"
        "  Acknowledge: https://alerts.example.org/am/incidents/7#acknowledge\n"
        "  Incident: https://alerts.example.org/am/incidents/7\n"
        "  Graph in Prometheus: https://prom.example.org/graph?g0.expr=a%3Db&g0.tab=1\n"
        "  Silence: https://am.example.org/#/silences/new"
        "?filter=%7Balertname%3D%22DiskFull%22%2C%20host%3D%22node1%22%7D\n"
        "\n"
        "Labels\n"
        "  alertname = DiskFull\n"
        "  host = node1\n"
        "\n"
        "Annotations\n"
        "  note = x\n"
        "\n"
        "-- \n"
        "Fleetwatch, channel hook, route all\n"
    )


@pytest.mark.parametrize("transition", ["firing", "resolved", "reminder", "escalation"])
@pytest.mark.parametrize("count", [1, 3, 60])
def test_the_html_mail_is_well_built(transition: str, count: int) -> None:
    html = part("mail.html", *sample(transition, count, NOW))
    page = Page(html)
    assert sum(tag == "style" for tag, _ in page.tags) == 1  # the dark colours; all else is in the elements
    assert all(attributes.get("style") for tag, attributes in page.tags if tag in ("a", "h1", "p", "span"))
    assert all(attributes["role"] == "presentation" for tag, attributes in page.tags if tag == "table")
    assert not {tag for tag, _ in page.tags} & {"img", "script", "link", "form", "iframe"}
    assert all(clickable(url) for url in page.links.values())
    assert page.links


def test_what_an_html_mail_says() -> None:
    annotations = {
        "description": "Two\nlines",
        "value": "97 %",
        "runbook_url": "https://runbooks.example.org/DiskFull",
        "panel_url": "https://grafana.example.org/d/1?viewPanel=2&orgId=1",
    }
    page = Page(part("mail.html", row(annotations=annotations)))
    assert page.links == {
        "Acknowledge": "https://alerts.example.org/am/incidents/7#acknowledge",
        "Incident": "https://alerts.example.org/am/incidents/7",
        "Runbook": annotations["runbook_url"],
        "Grafana panel": annotations["panel_url"],
        "Graph in Prometheus": "https://prom.example.org/graph?g0.expr=a%3Db&g0.tab=1",
        "Silence": "https://am.example.org/#/silences/new"
        "?filter=%7Balertname%3D%22DiskFull%22%2C%20host%3D%22node1%22%7D",
    }
    for text in (
        "WARNING",
        "Disk full",
        "Two\nlines",
        "node1",
        "97 %",
        "Fri 2 Jan 2026, 03:04:05 UTC (55 min 55 s ago)",
    ):
        assert text in page.text
    assert "Annotations" not in page.text  # each has a place of its own


def test_a_resolved_mail_says_how_long_it_lasted_and_asks_for_nothing() -> None:
    text, page = part("mail.txt", row("resolved")), Page(part("mail.html", row("resolved")))
    assert part("mail.subject", row("resolved")) == "[RESOLVED] Disk full"
    assert "Lasted:       55 min 1 s\n" in text
    assert "55 min 1 s" in page.text
    assert set(page.links) == {"Incident", "Graph in Prometheus"}


@pytest.mark.parametrize(("by", "told"), [("anna", "anna"), ("reconciliation", "no Alertmanager knows")])
def test_who_resolved_it_is_told(by: str, told: str) -> None:
    assert told in part("mail.txt", row("resolved", resolved_by=by))


def test_an_escalation_says_since_when_nobody_acknowledged() -> None:
    escalation = row("escalation")
    assert part("mail.subject", escalation) == "[WARNING] ESCALATION: Disk full"
    for name in ("mail.txt", "mail.html", "slack.json"):
        text = part(name, escalation)
        assert "Nobody has acknowledged this for 55 min" in text
        assert "since Fri 2 Jan 2026, 03:05:00 UTC" in text


def test_a_reminder_is_numbered() -> None:
    assert part("mail.subject", row("reminder", sequence=2)) == "[WARNING] REMINDER: Disk full"
    assert "Reminder 3: it is still firing." in part("mail.txt", row("reminder", sequence=2))


def test_what_is_acknowledged_is_not_asked_for_again() -> None:
    acknowledged = row("reminder", acknowledged_at=NOW, acknowledged_by="anna")
    page = Page(part("mail.html", acknowledged))
    assert "Acknowledge" not in page.links
    assert "Fri 2 Jan 2026, 04:00:00 UTC by anna" in page.text


def test_without_an_external_url_nothing_leads_to_the_receiver() -> None:
    assert set(Page(part("mail.html", row(), external_url=None)).links) == {"Graph in Prometheus", "Silence"}
    assert "example.org" not in part("sms.txt", row(), external_url=None)
    part("mail.html", row(), row(), external_url=None)


def test_no_severity_is_an_alert() -> None:
    assert part("mail.subject", row(severity="none")) == "[ALERT] Disk full"


def test_a_long_summary_is_cut_in_the_subject_only() -> None:
    long = row(summary="x" * 5000)
    assert len(part("mail.subject", long)) == MAX_SUBJECT
    assert "x" * 5000 in part("mail.txt", long)
    assert "x" * 5000 in part("mail.html", long)


def test_a_name_or_two_in_the_subject_of_a_digest() -> None:
    rows = [
        row(labels={"alertname": name}, severity=severity)
        for name, severity in [("HighCpu", "warning"), ("HostDown", "critical"), ("HostDown", "critical")]
    ]
    assert part("mail.subject", *rows) == "[CRITICAL] 3 alerts: 2 HostDown, 1 HighCpu"
    resolved = [row("resolved", labels={"alertname": f"A{number}"}) for number in range(6)]
    assert part("mail.subject", *resolved) == "[RESOLVED] 6 alerts: 1 A0, 1 A1, 1 A2, 1 A3, 2 others"
    mixed = [*rows, row("escalation", labels={}), row("resolved", labels={"alertname": "HostDown"})]
    assert part("mail.subject", *mixed) == (
        "[CRITICAL] 3 alerts, 1 resolved, 1 escalation: 3 HostDown, 1 HighCpu, 1 unnamed"
    )


@pytest.mark.slow
def test_a_digest_of_500_is_readable() -> None:
    rows = sample("firing", 500, NOW)
    message = renderer().message(rows, TEMPLATES)
    html, text = message.parts["mail.html"], message.parts["mail.txt"]
    assert len(html.encode()) < MAX_HTML
    page = Page(html)
    for body in (page.text, text):
        assert "500 alerts: 445 HostDown, 19 HighCPUUsage" in one_line(body)
        # The worst and of these the oldest come first; what has no line of its own is counted.
        assert body.index("web-500 is down") < body.index("web-499 is down")
        assert "web-02 is down" not in body
        assert "nd 450 more" in body
        assert re.search(r"395\s+HostDown", body)
    assert len(text.splitlines()) < 200
    assert len(message.parts["sms.txt"]) <= MAX_SMS
    assert len(json.loads(message.parts["webhook.json"])["incidents"]) == 500


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 50])
def test_an_html_mail_is_never_cut_off_by_gmail(count: int) -> None:
    text = "&<" * 2000
    labels = {f"label{number}": text for number in range(60)} | {"alertname": text, "host": text}
    fat = row(
        summary=text,
        labels=labels,
        annotations={"description": text, "value": text, "runbook_url": f"https://example.org/{text}"},
        generator_url=f"https://example.org/{'x' * 1900}",
    )
    html = part("mail.html", *[fat] * count)
    assert len(html.encode()) <= MAX_HTML
    assert "&lt;" in Page(html).text or "…" in Page(html).text


@pytest.mark.parametrize("transition", ["firing", "resolved", "reminder", "escalation"])
@pytest.mark.parametrize("count", [1, 3])
def test_hostile_labels_stay_text(transition: str, count: int) -> None:
    hostile = row(
        transition,
        severity=HOSTILE,
        summary=HOSTILE,
        labels={"alertname": HOSTILE, "host": HOSTILE, HOSTILE: HOSTILE},
        annotations={
            "description": HOSTILE,
            "value": HOSTILE,
            HOSTILE: HOSTILE,
            "runbook_url": "javascript:alert(1)",
            "dashboard_url": "data:text/html,x",
        },
        generator_url="javascript:alert(1)",
        external_url="javascript:alert(1)",
        acknowledged_at=NOW,
        acknowledged_by=HOSTILE,
    )
    message = renderer(links={"Site": "https://site.example/{{ labels.host }}"}).message(
        [hostile] * count, TEMPLATES
    )
    page = Page(message.parts["mail.html"])
    assert "script" not in {tag for tag, _ in page.tags}
    assert "{{ 7*7 }}" in page.text
    assert set(page.links) <= {"Incident", "All incidents", "Site", one_line(HOSTILE)}
    assert all(
        url.startswith(("https://alerts.example.org/", "https://site.example/%3C"))
        for url in page.links.values()
    )
    slack = message.parts["slack.json"]
    assert "<!channel>" not in slack
    assert "<https" not in slack
    json.loads(slack)
    assert json.loads(message.parts["webhook.json"])["incidents"][0]["labels"][HOSTILE] == HOSTILE
    if count == 1:  # what cannot be a link is still told
        assert "javascript:alert(1)" in page.text


def test_a_header_is_one_line() -> None:
    subject = part("mail.subject", row(summary="a\r\nBcc: x@example.org\u2028b\u202e"))
    assert subject == "[WARNING] a Bcc: x@example.org b"


def test_a_text_mail_cannot_forge_lines() -> None:
    text = part(
        "mail.txt", row(labels={"host": "a\nLinks\n  Runbook: x", "b\nc": "d"}, annotations={"value": "1\n2"})
    )
    assert text.count("\nLinks\n") == 1
    assert "Value:        1 2\n" in text


@pytest.mark.parametrize("count", [1, 2, 100])
@pytest.mark.parametrize("transition", ["firing", "resolved", "escalation"])
def test_a_slack_document_is_within_slacks_limits(transition: str, count: int) -> None:
    text = "&<>" * 2000
    fat = row(
        transition,
        summary=text,
        labels={"alertname": text, "host": text},
        annotations={"description": text, "value": text, "runbook_url": "https://example.org"},
        acknowledged_at=NOW,
        acknowledged_by=text,
        resolved_by=text,
    )
    links = {f"Link {number} {text}": "https://example.org" for number in range(40)}
    document = json.loads(part("slack.json", *[fat] * count, links=links))
    blocks = document["attachments"][0]["blocks"]
    assert len(document["text"]) <= 3000
    assert len(blocks) <= 50
    for block in blocks:
        assert len(block.get("text", {}).get("text", "")) <= 3000
        assert len(block.get("fields", [])) <= 10
        assert all(len(field["text"]) <= 2000 for field in block.get("fields", []))
        if block["type"] == "actions":
            assert 1 <= len(block["elements"]) <= 25
            assert all(len(button["text"]["text"]) <= 75 for button in block["elements"])
            assert all(len(button["url"]) <= 3000 for button in block["elements"])


def test_slack_text_is_not_cut_within_an_entity() -> None:
    assert slack_text("a&b<c>", 100) == "a&amp;b&lt;c&gt;"
    assert slack_text("ab&cdef", 6) == "ab…"


def test_the_webhook_document() -> None:
    first = row("reminder", sequence=1, annotations={"value": "97 %"})
    document = json.loads(part("webhook.json", first))
    assert document == {
        "version": "1",
        "key": "f1/2026-01-02T03:04:05+00:00/reminder/1",
        "transition": "reminder",
        "title": "[WARNING] REMINDER: Disk full",
        "sent_at": "2026-01-02T04:00:00Z",
        "incidents": [
            {
                "id": 7,
                "transition": "reminder",
                "number": 2,
                "status": "firing",
                "severity": "warning",
                "summary": "Disk full",
                "description": "",
                "host": "node1",
                "value": "97 %",
                "fingerprint": "f1",
                "labels": {"alertname": "DiskFull", "host": "node1"},
                "annotations": {"value": "97 %"},
                "starts_at": "2026-01-02T03:04:05Z",
                "received_at": "2026-01-02T03:05:00Z",
                "ends_at": None,
                "acknowledged_at": None,
                "acknowledged_by": None,
                "urls": {
                    "incident": "https://alerts.example.org/am/incidents/7",
                    "acknowledge": "https://alerts.example.org/am/incidents/7#acknowledge",
                    "graph": "https://prom.example.org/graph?g0.expr=a%3Db&g0.tab=1",
                    "alertmanager": "https://am.example.org",
                    "silence": "https://am.example.org/#/silences/new"
                    "?filter=%7Balertname%3D%22DiskFull%22%2C%20host%3D%22node1%22%7D",
                },
            }
        ],
    }
    assert json.loads(part("webhook.json", first, row("resolved")))["transition"] == "mixed"


def test_odd_unicode_survives_json() -> None:
    odd = 'a"\\\u2028\u0000\u001b\U0001f525é\u202e</script>\n'
    odd_row = row(summary=odd, labels={"alertname": odd, odd: odd}, annotations={"description": odd})
    assert json.loads(part("webhook.json", odd_row))["incidents"][0]["labels"][odd] == odd
    json.loads(part("slack.json", odd_row, odd_row))


@pytest.mark.parametrize("transition", ["firing", "resolved", "escalation"])
def test_a_text_message_is_short(transition: str) -> None:
    text = part(
        "sms.txt", row(transition, summary="CPU é \u2013 \u2018high\u2019 " * 100, labels={"host": "h" * 500})
    )
    assert len(text) <= MAX_SMS
    assert "é - 'high'" in text
    assert text.splitlines()[-1] == "https://alerts.example.org/am/incidents/7"
    cyrillic = part("sms.txt", row(transition, summary="Диск 🔥" * 100))
    assert len(cyrillic.encode("utf-16-le")) // 2 <= MAX_SMS_UNICODE
    assert cyrillic.splitlines()[-1] == "https://alerts.example.org/am/incidents/7"


def test_sms_text() -> None:
    assert sms_text("Zażółć → b…") == "Zazolc -> b..."
    assert sms_text("Zażółć → ½…") == "Zażółć → ½…"  # one character has no substitute, so nothing is gained
    assert len(sms_text("{" * 500)) == MAX_SMS // 2 + 1  # such a character takes the room of two


@pytest.mark.parametrize(
    "labels",
    [
        {"alertname": "DiskFull", "host": "node1"},
        {"path": 'C:\\a "b"', "q": "a=b&c=d#e?f%20g+h, {x}", "u": "ü🔥\n", "a": "~!"},
    ],
)
def test_the_silence_form_gets_all_labels_back(labels: dict[str, str]) -> None:
    url = silence_url("https://am.example.org/path/", labels)
    parts = urlsplit(url)
    assert (parts.path, parts.query) == ("/path/", "")
    route, _, query = parts.fragment.partition("?")
    assert route == "/silences/new"
    name, _, value = query.partition("=")
    assert name == "filter"
    assert not set(value) & set("&#?=+ ")
    # Alertmanager's page reads {name="JSON string", ...}
    matchers = unquote(value).removeprefix("{").removesuffix("}")
    found = re.findall(r'([^=, ]+)=("(?:[^"\\]|\\.)*")', matchers)
    assert {name: json.loads(text) for name, text in found} == labels


def test_no_silence_link_that_alertmanager_could_not_read() -> None:
    assert silence_url("", {"a": "b"}) == ""
    assert silence_url("https://am.example.org", {}) == ""
    assert silence_url("https://am.example.org", {"a b": "c"}) == ""
    assert silence_url("https://am.example.org", {"a": "", "b": "c"}).endswith("%7Bb%3D%22c%22%7D")


def test_links_of_the_settings_are_filled_in_and_quoted() -> None:
    links = {
        "Site": "https://site.example/{{ labels.host }}?q={{ annotations['a b'] }}",
        "Team": "https://teams.example/{{ labels.team | default('ops') }}",
        "Absent": "https://site.example/{{ labels.absent }}",
    }
    page = Page(
        part(
            "mail.html",
            row(labels={"host": "../a?b#c&d e"}, annotations={"a b": "x&y=z"}),
            links=links,
            external_url=None,
        )
    )
    assert {text: page.links.get(text) for text in links} == {
        "Site": "https://site.example/..%2Fa%3Fb%23c%26d%20e?q=x%26y%3Dz",
        "Team": "https://teams.example/ops",
        "Absent": None,
    }


def test_the_key_is_the_same_for_the_same_rows_only() -> None:
    def key(*rows: Notification) -> str:
        return renderer().message(rows, []).key

    rows = [
        row(),
        row("resolved"),
        row("reminder"),
        row("reminder", sequence=1),
        row(episode=1),
        row("reminder", sequence=1, episode=1),
        row(fingerprint="f2"),
    ]
    keys = [key(one) for one in rows]
    assert keys[0] == "f1/2026-01-02T03:04:05+00:00/firing"
    assert len(set(keys)) == len(keys)
    assert key(rows[0], rows[1]) == key(rows[1], rows[0])
    assert len({key(rows[0], rows[1]), key(rows[0], rows[2]), key(*rows[:3])}) == 3


def test_the_trace_goes_on() -> None:
    assert renderer().message([row(), row(traceparent="00-1")], []).traceparent == "00-1"


@pytest.fixture
def site(tmp_path: Path) -> Callable[[str, str], Renderer]:
    """Return a function that writes a site's template and returns the renderer that uses it."""

    def write(name: str, text: str) -> Renderer:
        (tmp_path / f"{name}.j2").write_text(text)
        return renderer(template_directory=tmp_path)

    return write


def test_the_built_in_templates_are_sound() -> None:
    renderer(links={"Site": "https://example.org/{{ labels.x }}"}).check()


def test_a_site_overrides_one_template(site: Callable[[str, str], Renderer]) -> None:
    own = site("mail.subject", "{{ alert.labels.team }}{{ alert.labels.host }}: {{ alert.summary }}")
    own.check()
    message = own.message([row()], ["mail.subject", "sms.txt"])
    assert message.parts["mail.subject"] == "node1: Disk full"
    assert message.parts["sms.txt"].startswith("WARNING: Disk full")


def test_a_site_extends_a_built_in_template(site: Callable[[str, str], Renderer]) -> None:
    own = site(
        "mail.html",
        '{% extends "builtin/mail.html.j2" %}{% from "builtin/_mail.html.j2" import button %}'
        "{% block footer %}<tr><td>{{ button('Call', 'https://call.example') }}{{ alert.summary }}</td></tr>"
        "{{ super() }}{% endblock %}",
    )
    own.check()
    page = Page(own.message([row(summary="<b>")], ["mail.html"]).parts["mail.html"])
    assert page.links["Call"] == "https://call.example"
    assert "Sent by Fleetwatch" in page.text
    assert "b" not in {tag for tag, _ in page.tags}


def test_the_examples_of_the_how_to_work(site: Callable[[str, str], Renderer], tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/change-messages.md").read_text()
    (template,) = re.findall(r"^```jinja\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    examples = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    variables = {
        name: value
        for each in examples
        for name, value in yaml.safe_load(each.replace("!unsafe ", "")).items()
    }
    site("mail.html", template)
    own = renderer(template_directory=tmp_path, links=variables["alert_receiver_links"])
    own.check()
    mail = Page(own.message([row()], ["mail.html"]).parts["mail.html"])
    assert "On call: operations" in mail.text
    assert mail.links["Team"] == "https://wiki.example.org/teams/ops"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("mail.txt", "a\n{% if %}\n", r"/mail\.txt\.j2 line 2: Expected an expression"),
        ("mail.txt", "a\nb {{ alert.sumary }}", r"/mail\.txt\.j2 line 2: .*has no attribute 'sumary'"),
        ("mail.html", "\n\n{{ 1 / 0 }}", r"/mail\.html\.j2 line 3: ZeroDivisionError"),
        ("mail.html", '{% extends "nothing.j2" %}', r"mail\.html\.j2 line 1: .*nothing\.j2"),
        ("slack.json", '{"text": {{ alert.summary }}}', r"slack\.json\.j2: .*Expecting value"),
        ("webhook.json", "{{ alerts | length / 0.0 }}", "webhook"),
        ("webhook.json", "NaN", "NaN is not JSON"),
        ("sms.txt", "{% if digest %}x{% endif %}", r"sms\.txt\.j2: the text is empty"),
        (
            "mail.subject",
            "{{ ''.__class__.__mro__ }}",
            r"mail\.subject\.j2 line 1: access to attribute '__class__'",
        ),
        ("mail.htm", "x", r"mail\.htm\.j2: no template of this name is used"),
    ],
)
def test_a_broken_template_is_found_and_costs_no_message(
    site: Callable[[str, str], Renderer], caplog: pytest.LogCaptureFixture, name: str, text: str, why: str
) -> None:
    own = site(name, text)
    with pytest.raises(BrokenTemplateError, match=why) as caught:
        own.check()
    assert "\n" not in str(caught.value)
    if name in TEMPLATES:
        message = own.message([row()], [name])
        assert message == renderer().message([row()], [name])
        assert "broken template" in caplog.text


@pytest.mark.parametrize(
    "expression",
    [
        "''.__class__.__mro__[1].__subclasses__()",
        "alert.__init__.__globals__",
        "alert.starts_at.__reduce__()",
        "cycler.__init__.__globals__.os.popen('id').read()",
        "self.__init__",
        "alert | attr('__class__') | string",
        "'{0.__class__}'.format(alert)",
        "alert.labels.update({'a': 'b'})",
        "alerts.clear()",
        "joiner.__call__.__globals__",
    ],
)
def test_a_template_cannot_leave_its_sandbox(site: Callable[[str, str], Renderer], expression: str) -> None:
    own = site("mail.subject", f"[{{{{ {expression} }}}}]")
    with pytest.raises(BrokenTemplateError):
        own.check()
    labels = {"host": f"{{{{ {expression} }}}}"}
    assert f"{{{{ {expression} }}}}" in part("mail.txt", row(labels=labels))


def test_a_link_is_sandboxed_and_checked() -> None:
    assert (
        Page(part("mail.html", links={"Bad": "https://x.example/{{ ''.__class__ }}"})).links.get("Bad")
        is None
    )
    with pytest.raises(BrokenTemplateError, match='setting "links": the URL of "Bad"'):
        renderer(links={"Bad": "https://x.example/{{ labels.host"}).check()


def test_a_template_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BrokenTemplateError, match='"template_directory": cannot read'):
        renderer(template_directory=tmp_path / "nothing").check()


def _preview(*arguments: str) -> int:
    return cli.main(["render", *arguments])


@pytest.mark.slow
def test_a_preview_needs_nothing(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for template in TEMPLATES:
        assert _preview("--template", template, "--transition", "escalation") == 0
    assert "ESCALATION: web-01 uses 93 % of its CPU" in capfd.readouterr().out
    output = tmp_path / "mail.html"
    assert _preview("--count", "500", "--output", str(output)) == 0
    assert "500 alerts" in output.read_text()
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_a_preview_of_a_sites_own_alert_and_templates(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    alert, config = tmp_path / "alert.json", tmp_path / "receiver.yml"
    alert.write_text(
        json.dumps({"alerts": [{"status": "firing", "labels": {"alertname": "Own", "host": "db1"}}]})
    )
    (tmp_path / "mail.subject.j2").write_text("{{ alert.name }} on {{ alert.host }} {{ alert.transition }}")
    config.write_text(
        "channels: [{name: mail, type: slack}]\n"  # its secret is not needed
        f"template_directory: {tmp_path}\n"
    )
    arguments = ["--config", str(config), "--alert", str(alert), "--template", "mail.subject"]
    assert _preview(*arguments, "--transition", "resolved") == 0
    assert capfd.readouterr().out == "Own on db1 resolved\n"

    (tmp_path / "mail.subject.j2").write_text("{{ alert.nam }}")
    assert _preview(*arguments) == 1
    alert.write_text("{")
    (tmp_path / "mail.subject.j2").unlink()
    assert _preview(*arguments) == 1
    error = capfd.readouterr().err
    assert "mail.subject.j2 line 1" in error
    assert "not JSON" in error


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.org/a?b=c#d", True),
        ("HTTP://example.org", True),
        ("javascript:alert(1)", False),
        ("data:text/html,x", False),
        ("//example.org", False),
        ("http:example.org", False),
        ("https://", False),
        ("https://exa mple.org", False),
        (" https://example.org", False),
        ("java\nscript:alert(1)", False),
        ("https://[broken", False),
        ("", False),
    ],
)
def test_clickable(url: str, expected: bool) -> None:
    assert clickable(url) is expected


def test_one_line() -> None:
    assert one_line(" a\r\n\tb\x00\u2028c\u202ed\u200b ") == "a b c d"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (59, "59 s"),
        (3600, "1 h"),
        (3660, "1 h 1 min"),
        (3605, "1 h"),
        (200000, "2 d 7 h"),
    ],
)
def test_duration(seconds: float, expected: str) -> None:
    assert duration(timedelta(seconds=seconds)) == expected
