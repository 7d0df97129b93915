"""Units, flags and service commands that the roles build from data."""

from __future__ import annotations

from ansible_collections.fleetwatch.monitoring.plugins.filter.python_service import (
    python_check,
    python_service,
)
from ansible_collections.fleetwatch.monitoring.plugins.plugin_utils.systemd import (
    SANDBOX,
    cli_flags,
    quote,
    systemd_drop_in,
    systemd_unit,
)


def settings(text: str, section: str) -> list[str]:
    """Return the lines of one section of a unit."""
    body = text.split(f"[{section}]\n")[1].split("\n\n", maxsplit=1)[0]
    return body.splitlines()


def test_unit_has_the_sandbox_unless_it_says_otherwise() -> None:
    text = systemd_unit(
        {"Service": {"ExecStart": ["/bin/x"], "ProtectHome": "read-only", "PrivateUsers": None}}
    )
    lines = settings(text, "Service")
    assert "ProtectHome=read-only" in lines
    assert "ProtectHome=yes" not in lines
    assert not any(line.startswith("PrivateUsers=") for line in lines)
    for name in set(SANDBOX) - {"ProtectHome", "PrivateUsers"}:
        assert any(line.startswith(f"{name}=") for line in lines), name


def test_drop_in_is_the_sandbox_and_what_is_named() -> None:
    text = systemd_drop_in({"Service": {"User": "demo"}}, {"Service": {"PrivateUsers": False, "UMask": None}})
    assert text.startswith("[Unit]\n\n[Service]\n")
    assert "[Install]" not in text
    lines = settings(text, "Service")
    assert {"User=demo", "PrivateUsers=no", "ProtectHome=yes"} <= set(lines)
    assert not any(line.startswith(("UMask=", "Restart=", "Type=")) for line in lines)


def test_overrides_win_and_lists_repeat() -> None:
    text = systemd_unit(
        {"Service": {"Environment": ["A=1", "B=2"], "LimitNOFILE": 1}},
        {"Service": {"LimitNOFILE": 65536}, "Unit": {"After": "x.service"}},
    )
    assert [line for line in settings(text, "Service") if line.startswith("Env")] == [
        "Environment=A=1",
        "Environment=B=2",
    ]
    assert "LimitNOFILE=65536" in settings(text, "Service")
    assert "After=x.service" in settings(text, "Unit")


def test_arguments_are_quoted_as_systemd_reads_them() -> None:
    assert quote("plain") == "plain"
    assert quote("a b") == '"a b"'
    assert quote("") == '""'
    assert quote("100%") == "100%%"
    assert quote("$HOME") == "$$HOME"
    assert quote('say "hi"') == r'"say \"hi\""'


def test_long_command_line_has_one_argument_a_line() -> None:
    text = systemd_unit({"Service": {"ExecStart": ["/bin/x", "--first=" + "y" * 60, "--second=" + "z" * 60]}})
    assert "ExecStart=/bin/x \\\n    --first=" in text
    assert "ExecStart=/bin/x a" in systemd_unit({"Service": {"ExecStart": ["/bin/x", "a"]}})


def test_flags() -> None:
    flags = {"on": True, "off": False, "gone": None, "word": "x", "many": [1, 2], "empty": "", "none": []}
    assert cli_flags(flags) == ["--on", "--no-off", "--word=x", "--many=1", "--many=2", "--empty="]


def test_python_service_and_its_check_use_the_same_program() -> None:
    service = python_service("/etc/x/x.yml", "fleetwatch.x", "x", "1.0+ab")
    check = python_check("x.yml", "fleetwatch.x", "1.0+ab")
    assert service["Environment"][0] == check[1] == "PYTHONPATH=/opt/fleetwatch/1.0+ab/lib"
    assert "CREDENTIALS_DIRECTORY=/etc/x/credentials" in service["Environment"]
    assert "CREDENTIALS_DIRECTORY={config}/credentials" in check
    assert check[-1] == "{config}/x.yml"
