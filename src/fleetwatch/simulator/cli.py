"""``python3 -m fleetwatch.simulator incident …``: tells a running simulator what to play."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

TOKEN_VARIABLE = "METRICS_SIMULATOR_CONTROL_TOKEN"  # noqa: S105 - the name of a variable


def add_parser(commands: Any) -> None:
    """Add the subcommand ``incident`` to argparse's subparsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "incident", help="play an incident on a running simulator, list or end incidents"
    )
    parser.add_argument(
        "--url", default="http://127.0.0.1:9101", help="of the simulator; default %(default)s"
    )
    parser.add_argument(
        "--token-file", type=Path, help=f"file with the control token; default ${TOKEN_VARIABLE}"
    )
    actions = parser.add_subparsers(dest="action", required=True)
    play = actions.add_parser("play", help="play a scenario")
    play.add_argument("scenario")
    play.add_argument("--host", action="append", dest="hosts", help="name or pattern, may be repeated")
    play.add_argument("--after", type=float, help="seconds to wait before it starts")
    play.add_argument("--duration", type=float, help="seconds it lasts")
    play.add_argument("--strength", type=float, help="e.g. percent")
    actions.add_parser("list", help="list what runs or waits")
    end = actions.add_parser("end", help="end one incident, or all")
    end.add_argument("id", nargs="?")


def run(options: argparse.Namespace) -> int:
    """Do what the parsed options say; print the answer, return the exit code."""
    method, path, body = "GET", "/incidents", None
    if options.action == "play":
        names = ("scenario", "hosts", "after", "duration", "strength")
        method = "POST"
        body = {name: value for name in names if (value := getattr(options, name)) is not None}
    elif options.action == "end":
        method, path = "DELETE", f"/incidents/{options.id}" if options.id else "/incidents"
    try:
        print(json.dumps(_call(options, method, path, body), indent=2))  # noqa: T201 - the command's output
    except (OSError, ValueError) as error:
        print(f"metrics_simulator: {options.url}{path}: {_reason(error)}", file=sys.stderr)  # noqa: T201 - the same
        return 1
    return 0


def _call(options: argparse.Namespace, method: str, path: str, body: dict[str, Any] | None) -> Any:
    if not options.url.startswith(("http://", "https://")):
        raise ValueError("the URL must start with http:// or https://")
    token = options.token_file.read_text().strip() if options.token_file else os.environ.get(TOKEN_VARIABLE)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    request = Request(options.url.rstrip("/") + path, data, headers, method=method)  # noqa: S310 - checked above
    with urlopen(request, timeout=10) as response:  # noqa: S310 - checked above
        return json.load(response)


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        try:
            return str(json.load(error)["error"])
        except (ValueError, KeyError, TypeError):
            return f"HTTP {error.code}"
    return str(error.reason if isinstance(error, URLError) else error)
