"""Render systemd units with the sandbox that every Fleetwatch unit starts from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The strictest settings under which a network service that writes only to its state directory runs.
# Order and meaning: systemd.exec(5). A unit loosens what its program really needs, by name.
SANDBOX: dict[str, Any] = {
    "NoNewPrivileges": True,
    "CapabilityBoundingSet": "",
    "AmbientCapabilities": "",
    "UMask": "0077",
    "ProtectSystem": "strict",
    "ProtectHome": True,
    "PrivateTmp": True,
    "PrivateDevices": True,
    "DevicePolicy": "closed",
    "PrivateUsers": True,
    "ProtectHostname": True,
    "ProtectClock": True,
    "ProtectKernelTunables": True,
    "ProtectKernelModules": True,
    "ProtectKernelLogs": True,
    "ProtectControlGroups": True,
    "ProtectProc": "invisible",
    "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6",
    "RestrictNamespaces": True,
    "RestrictRealtime": True,
    "RestrictSUIDSGID": True,
    "LockPersonality": True,
    "MemoryDenyWriteExecute": True,
    "RemoveIPC": True,
    "SystemCallArchitectures": "native",
    "SystemCallFilter": ["@system-service", "~@privileged @resources"],
    "SystemCallErrorNumber": "EPERM",
}

# A service that ends for whatever reason comes back, and never gives up for good.
SUPERVISION: dict[str, Any] = {
    "Type": "exec",
    "Restart": "always",
    "RestartSec": 2,
    "TimeoutStopSec": 30,
}

DEFAULTS: dict[str, dict[str, Any]] = {
    "Unit": {
        "After": "network-online.target",
        "Wants": "network-online.target",
        "StartLimitIntervalSec": 0,
    },
    "Service": {**SUPERVISION, **SANDBOX},
    "Install": {"WantedBy": "multi-user.target"},
}


LINE_LENGTH = 110


def quote(argument: str) -> str:
    """Quote one command line argument as systemd.service(5) reads it.

    ``%`` and ``$`` are doubled, so that no specifier or variable is expanded.
    """
    text = argument.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if not text or any(c.isspace() or c in "\"';" for c in text) else text


def _lines(name: str, value: Any) -> list[str]:
    """Return the ``Name=value`` lines of one setting."""
    if value is None:
        return []
    if isinstance(value, list | tuple):
        if name.startswith("Exec"):
            arguments = [quote(str(item)) for item in value]
            line = f"{name}={' '.join(arguments)}"
            # A long command line is read more easily with one argument a line.
            return [line if len(line) <= LINE_LENGTH else f"{name}=" + " \\\n    ".join(arguments)]
        return [f"{name}={item}" for item in value]
    if isinstance(value, bool):
        return [f"{name}={'yes' if value else 'no'}"]
    return [f"{name}={value}"]


def systemd_unit(unit: Mapping[str, Mapping[str, Any]], overrides: Mapping[str, Any] | None = None) -> str:
    """Return the text of a unit file.

    Args:
        unit: Section to setting to value. A list repeats the setting, except for ``Exec…`` settings, where
            it is the argument vector and is quoted; ``None`` drops a default.
        overrides: The site's changes, of the same form; they win.

    Returns:
        The unit file, with the sandbox and supervision above under whatever ``unit`` sets.

    """
    return _render(unit, overrides, DEFAULTS)


def systemd_drop_in(unit: Mapping[str, Mapping[str, Any]], overrides: Mapping[str, Any] | None = None) -> str:
    """Return the text of a drop-in for a unit that a package brings.

    Args:
        unit: As for :func:`systemd_unit`; only the sandbox is added. How the service starts and stops
            is the package's business.
        overrides: The site's changes, of the same form; they win.

    """
    return _render(unit, overrides, {"Unit": {}, "Service": SANDBOX})


def _render(
    unit: Mapping[str, Mapping[str, Any]],
    overrides: Mapping[str, Any] | None,
    defaults: Mapping[str, Mapping[str, Any]],
) -> str:
    """Return the sections of ``defaults``, each with what the unit and the site set in it."""
    lines: list[str] = []
    for section, default in defaults.items():
        own = {**unit.get(section, {}), **((overrides or {}).get(section) or {})}
        settings = {**own, **{name: value for name, value in default.items() if name not in own}}
        lines.append(f"[{section}]")
        for name, value in settings.items():
            lines += _lines(name, value)
        lines.append("")
    return "\n".join(lines)


def cli_flags(flags: Mapping[str, Any]) -> list[str]:
    """Return command line flags.

    ``True`` gives ``--name``, ``False`` gives ``--no-name``, a list repeats the flag, ``None`` drops it.
    """
    arguments: list[str] = []
    for name, value in flags.items():
        if value is None:
            continue
        if isinstance(value, bool):
            arguments.append(f"--{'' if value else 'no-'}{name}")
        else:
            arguments += [
                f"--{name}={item}" for item in (value if isinstance(value, list | tuple) else [value])
            ]
    return arguments
