"""What a host says of itself, and which hosts are refused."""

from __future__ import annotations

from ansible_collections.fleetwatch.monitoring.plugins.action.check_host import parse, unsupported

DEBIAN = """PRETTY_NAME="Debian GNU/Linux 13 (trixie)"
NAME="Debian GNU/Linux"
VERSION_ID="13"
# a comment
ID=debian
x86_64
Python 3.13.5
"""
SUPPORTED = {"Debian": ["12", "13"]}


def test_facts_have_ansibles_names() -> None:
    assert parse(DEBIAN) == {
        "architecture": "x86_64",
        "distribution": "Debian",
        "distribution_version": "13",
        "distribution_major_version": "13",
        "python_version": "3.13.5",
    }


def test_supported_host_passes() -> None:
    assert unsupported(parse(DEBIAN), SUPPORTED) == ""


def test_other_hosts_are_refused_with_the_cure() -> None:
    ubuntu = DEBIAN.replace("ID=debian", "ID=ubuntu").replace('"13"', '"24.04"')
    problem = unsupported(parse(ubuntu), SUPPORTED)
    assert "Ubuntu 24.04" in problem
    assert "Debian 12 or 13" in problem
    assert "Debian 11" in unsupported(parse(DEBIAN.replace('"13"', '"11"')), SUPPORTED)
    assert "Debian unknown" in unsupported(parse(DEBIAN.replace("VERSION_ID", "X")), SUPPORTED)
