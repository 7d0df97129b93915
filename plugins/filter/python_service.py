"""Filters that the roles of Fleetwatch's own Python services share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

PYTHON = "/usr/bin/python3"

SMALL = ("PYTHONOPTIMIZE=2", "MALLOC_ARENA_MAX=2")
"""Environment that saves memory: no docstrings (a tenth), and no heap for each thread."""


def _python_path(version: str) -> str:
    """Return the environment assignment that finds the services of one installed version."""
    return f"PYTHONPATH=/opt/fleetwatch/{version}/lib"


def python_service(config: str, module: str, user: str, version: str) -> dict[str, Any]:
    """Return the ``[Service]`` settings of a unit that runs a Python service.

    Args:
        config: The settings file on the host; secrets are in the folder ``credentials`` beside it.
        module: The Python module, such as ``fleetwatch.receiver``.
        user: The system user; its state and cache folders carry its name.
        version: The installed version of the services, from the role ``python_program``.

    """
    return {
        "User": user,
        "ExecStart": [PYTHON, "-m", module, "--config", config],
        "Environment": [
            _python_path(version),
            # Readable for this user only. Not LoadCredential=, which does nothing in some containers.
            f"CREDENTIALS_DIRECTORY={Path(config).parent}/credentials",
            # The program's folder is read-only; compiled modules make the next start quicker.
            f"PYTHONPYCACHEPREFIX=/var/cache/{user}",
            "PYTHONUNBUFFERED=1",
            *SMALL,
        ],
        "StateDirectory": user,
        "StateDirectoryMode": "0750",
        "CacheDirectory": user,
    }


def python_check(
    file: str, module: str, version: str, environment: Mapping[str, str] | None = None
) -> list[str]:
    """Return the command that checks a new settings file, for ``validate`` of ``verified_service``.

    Args:
        file: The settings file, relative to the folder with the new files; ``credentials/`` there has the
            secrets.
        module: The Python module, such as ``fleetwatch.receiver``.
        version: The installed version of the services.
        environment: Settings that name files beside the new settings file, as environment variables.

    """
    assignments = [
        _python_path(version),
        "CREDENTIALS_DIRECTORY={config}/credentials",
        "PYTHONDONTWRITEBYTECODE=1",
        *(f"{name}={value}" for name, value in (environment or {}).items()),
    ]
    return ["/usr/bin/env", *assignments, PYTHON, "-m", module, "--check", "--config", f"{{config}}/{file}"]


class FilterModule:
    """The filters of this file, as Ansible finds them."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return filter name to function."""
        return {"python_check": python_check, "python_service": python_service}
