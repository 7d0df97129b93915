from __future__ import annotations

import pytest

from fleetwatch.alerting.matchers import parse

LABELS = {"severity": "critical", "team": "db", "text": 'a "b"\n'}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ('severity="critical"', True),
        ("severity=critical", True),
        (' severity  =  "critical" ', True),
        ('severity!="critical"', False),
        ('severity=~"crit.*"', True),
        ('severity=~"crit"', False),  # the whole value, as in Alertmanager
        ("team=~web|db", True),
        ('team!~"web|db"', False),
        ('missing=""', True),
        ('missing!=""', False),
        ('missing=~".+"', False),
        (r'text="a \"b\"\n"', True),
        ('severity="crit.*"', False),
    ],
)
def test_matching(text: str, matches: bool) -> None:
    assert parse(text).matches(LABELS) is matches


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not a matcher"),
        ("severity", "is not a matcher"),
        ("severity==x", None),
        ("1a=b", "is not a matcher"),
        ('a="b', "quotes do not fit"),
        ('a=b"', "quotes do not fit"),
        ('a="b"c"', "quotes do not fit"),
        ("a=~(", "not a regular expression"),
    ],
)
def test_what_is_no_matcher(text: str, reason: str | None) -> None:
    if reason is None:
        assert parse(text).matches({"severity": "=x"})
        return
    with pytest.raises(ValueError, match=reason):
        parse(text)
