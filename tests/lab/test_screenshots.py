"""Pictures of dashboards: a real browser, and pages with the names that Grafana's pages have."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from flask import Flask, abort, make_response, request
from flask.typing import ResponseReturnValue
from selenium.webdriver import Chrome
from werkzeug.serving import make_server

from lab.browser import chromium
from lab.console import LabError
from lab.screenshots import Site, shipped, take

pytestmark = pytest.mark.slow

USER, PASSWORD = "admin", "only-for-the-tests"
HEADER = '<section data-testid="data-testid Panel header CPU">CPU</section>'
BAR = '<div id="bar" aria-label="Panel loading bar"></div>'
PAGES = {
    "good": HEADER + BAR + "<script>setTimeout(() => document.getElementById('bar').remove(), 1500)</script>",
    "wrong": HEADER
    + '<button data-testid="data-testid Panel status error" title="bad_data: parse error"></button>',
    "stuck": HEADER + BAR,
    "empty": "<p>Dashboard not found</p>",
}


def pages() -> Flask:
    app = Flask(__name__)

    @app.get("/login")
    def page() -> str:
        return "<h1>Log in</h1>"

    @app.post("/login")
    def login() -> ResponseReturnValue:
        given = request.get_json()
        if (given["user"], given["password"]) != (USER, PASSWORD):
            abort(401)
        answer = make_response({"message": "Logged in"})
        answer.set_cookie("session", "1", httponly=True)
        return answer

    @app.get("/d/<uid>")
    def dashboard(uid: str) -> str:
        return PAGES[uid] if request.cookies.get("session") else "<h1>Log in</h1>"

    return app


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = make_server("127.0.0.1", 0, pages(), threaded=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join(10)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


def test_a_wrong_password_is_said(browser: Chrome, url: str, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="refuses the login of admin: 401"):
        take(browser, Site(url, USER, "wrong"), ["good"], tmp_path)


def test_a_dashboard_is_waited_for_and_pictured(browser: Chrome, url: str, tmp_path: Path) -> None:
    began = time.monotonic()
    assert take(browser, Site(url, USER, PASSWORD), ["good"], tmp_path, 20) == []
    assert time.monotonic() - began > 1.5, "the panel was still loading"
    assert (tmp_path / "good.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_wrong_is_said_and_pictured(browser: Chrome, url: str, tmp_path: Path) -> None:
    assert take(browser, Site(url, USER, PASSWORD), ["wrong", "stuck", "empty"], tmp_path, 2) == [
        "wrong: a panel shows an error: bad_data: parse error",
        "stuck: 1 panels, and not all are drawn after 2 s",
        "empty: 0 panels, and not all are drawn after 2 s",
    ]
    assert {path.stem for path in tmp_path.iterdir()} == {"wrong", "stuck", "empty"}


def test_all_dashboards_of_the_roles_are_known() -> None:
    assert {"fleetwatch-fleet", "fleetwatch-grafana"} <= set(shipped())
