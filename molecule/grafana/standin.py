#!/usr/bin/python3
"""A stand-in for Grafana, for tests where Grafana cannot be had. It is NOT Grafana and shows nothing.

It reads the same files, keeps an administrator's account, and answers the few requests of Grafana's API by
which the role works, as Grafana's documentation and source describe them. A test against it shows that the
role
installs, configures and asks as intended; not that Grafana takes it. For that, give GRAFANA_RELEASE.
"""

from __future__ import annotations

import base64
import configparser
import http.server
import json
import os
import re
import ssl
import sys
from pathlib import Path
from typing import Any

import yaml

TITLE = "Grafana stand-in of Fleetwatch's tests, not Grafana"
MIN_PASSWORD = 4


def expanded(text: str) -> str:
    """Return a setting with the content of the files that it names."""
    text = text.removeprefix('"""').removesuffix('"""')
    return re.sub(r"\$__file\{([^}]+)\}", lambda found: Path(found[1]).read_text().strip(), text)


def literal(value: Any) -> Any:
    """Return a value of a provisioning file as Grafana takes it: ``$$`` is a dollar, ``$NAME`` a variable."""
    if isinstance(value, str):
        parts = [
            re.sub(r"\$\{?\w+\}?", lambda found: os.environ.get(found[0].strip("${}"), ""), part)
            for part in value.split("$$")
        ]
        return "$".join(parts)
    if isinstance(value, dict):
        return {key: literal(item) for key, item in value.items()}
    return [literal(item) for item in value] if isinstance(value, list) else value


class StandIn:
    """The settings, and what Grafana would keep in its database."""

    def __init__(self, config: str) -> None:
        """Read both; at the first start make the account."""
        parser = configparser.ConfigParser(interpolation=None, comment_prefixes=(";",))
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read(config, encoding="utf-8")
        self.settings = {
            name: {k: expanded(v) for k, v in parser[name].items()} for name in parser.sections()
        }
        self.path = Path(self.settings["paths"]["data"]) / "standin.json"
        security = self.settings["security"]
        self.data: dict[str, Any] = {
            "login": security["admin_user"],
            "email": "admin@localhost",
            "password": security["admin_password"],
            "datasources": [],
            "dashboards": [],
        }
        self.load()

    def load(self) -> None:
        """Read what was kept."""
        if self.path.exists():
            self.data = json.loads(self.path.read_text())

    def save(self) -> None:
        """Keep it."""
        self.path.write_text(json.dumps(self.data))

    def provision(self, kind: str) -> None:
        """Read the files of one kind again; what is in them no more goes."""
        folder = Path(self.settings["paths"]["provisioning"]) / kind
        files = [yaml.safe_load(path.read_text()) for path in sorted(folder.glob("*.y*ml"))]
        if kind == "datasources":
            found = [literal(entry) for file in files for entry in file["datasources"]]
            if sum(bool(entry.get("isDefault")) for entry in found) > 1:
                raise ValueError("Only one datasource per organization can be marked as default")
            pruned = all(file.get("prune") for file in files)
            kept = [] if pruned else self.data["datasources"]
            names = {entry["name"] for entry in found}
            self.data["datasources"] = [*found, *(entry for entry in kept if entry["name"] not in names)]
        else:
            self.data["dashboards"] = [
                {**self.dashboard(path, provider)}
                for file in files
                for provider in file["providers"]
                for path in sorted(Path(provider["options"]["path"]).rglob("*.json"))
            ]
        self.save()

    def dashboard(self, path: Path, provider: dict[str, Any]) -> dict[str, Any]:
        """Return a dashboard of a file, with the folder that it is shown in."""
        model = json.loads(path.read_text())
        folder = provider.get("folder", "")
        if provider["options"].get("foldersFromFilesStructure"):
            relative = path.parent.relative_to(provider["options"]["path"])
            folder = relative.name
        return {"uid": model["uid"], "title": model["title"], "folderTitle": folder, "model": model}

    def reset_password(self, password: str) -> None:
        """Set the administrator's password."""
        if len(password) < MIN_PASSWORD:
            sys.exit("Error: ✗ new password is too short")
        self.data["password"] = password
        self.save()


class Handler(http.server.BaseHTTPRequestHandler):
    """Grafana's API, as far as the role uses it."""

    grafana: StandIn

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the name in the base class
        """Log one line a request, without a query."""

    def answer(self, content: Any, status: int = 200) -> None:
        """Answer JSON, or text as it is."""
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(content, str) else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_request(self) -> None:
        """Answer what the role asks for."""
        grafana, path = self.grafana, self.path.partition("?")[0]
        grafana.load()
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        if path == "/api/health":
            return self.answer({"database": "ok", "version": TITLE})
        if path == "/metrics":
            return self.answer('# TYPE grafana_build_info gauge\ngrafana_build_info{edition="stand-in"} 1\n')
        if not self.allowed():
            return self.answer({"message": "Invalid username or password"}, 401)
        return self.answer_known(path, body)

    def answer_known(self, path: str, body: dict[str, Any]) -> None:  # noqa: PLR0911 - one for each path
        """Answer one who is logged in."""
        grafana, data = self.grafana, self.grafana.data
        if path == "/api/user" and self.command == "PUT":
            data.update({key: body[key] for key in ("login", "email") if body.get(key)})
            grafana.save()
            return self.answer({"message": "User updated"})
        if path == "/api/user":
            return self.answer(
                {"login": data["login"], "email": data["email"], "name": "", "isGrafanaAdmin": True}
            )
        if path == "/api/datasources":
            return self.answer(
                [{k: v for k, v in entry.items() if k != "secureJsonData"} for entry in data["datasources"]]
            )
        if path == "/api/search":
            return self.answer(
                [{k: v for k, v in entry.items() if k != "model"} for entry in data["dashboards"]]
            )
        if found := re.fullmatch(r"/api/admin/provisioning/(datasources|dashboards)/reload", path):
            try:
                grafana.provision(found[1])
            except Exception as error:  # noqa: BLE001 - whatever it is, Grafana answers 500
                return self.answer({"message": str(error)}, 500)
            return self.answer({"message": "config reloaded"})
        return self.answer({"message": "Not found"}, 404)

    do_GET = do_POST = do_PUT = handle_request  # noqa: N815 - the names that the base class looks for

    def allowed(self) -> bool:
        """Tell whether the request has the right name, or address, and password."""
        kind, _, coded = self.headers.get("Authorization", "").partition(" ")
        name, _, password = base64.b64decode(coded or "").decode().partition(":")
        data = self.grafana.data
        return kind == "Basic" and name in (data["login"], data["email"]) and password == data["password"]


def serve(grafana: StandIn) -> None:
    """Provision and answer for ever."""
    server = grafana.settings["server"]
    for kind in ("datasources", "dashboards"):
        grafana.provision(kind)
    Handler.grafana = grafana
    http.server.ThreadingHTTPServer.allow_reuse_address = True
    listener = http.server.ThreadingHTTPServer((server["http_addr"], int(server["http_port"])), Handler)
    if server["protocol"] == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(server["cert_file"], server["cert_key"])
        listener.socket = context.wrap_socket(listener.socket, server_side=True)
    listener.serve_forever()


def main() -> None:
    """Run ``server``, or ``cli … admin reset-admin-password``, as Grafana's program is run."""
    words = [part for word in sys.argv[1:] for part in word.split("=", 1)]
    grafana = StandIn(words[words.index("--config") + 1])
    if words[0] == "server":
        serve(grafana)
    elif words[-3:] == ["admin", "reset-admin-password", "--password-from-stdin"]:
        grafana.reset_password(sys.stdin.readline().rstrip("\n"))
    else:
        sys.exit(f"{TITLE}: knows no {' '.join(words)}")


if __name__ == "__main__":
    main()
