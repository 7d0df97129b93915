"""The page in a real browser: Debian's Chromium, headless, through its own driver.

The receiver is reached by a name over plain HTTP, as in many networks: a browser trusts ``localhost`` more
(it sends Sec-Fetch-Site there, for one), so what works there could fail elsewhere.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from axe_selenium_python import Axe
from flask import Flask
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from fleetwatch.receiver.app import create_app
from fleetwatch.store import Store
from lab.browser import chromium
from tests.receiver.test_pages import ACT, accept, event, park, settings

pytestmark = pytest.mark.slow

HOST = "receiver.test"
LONG = "x" * 5000
WCAG = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21aa"]}


class Quiet(WSGIRequestHandler):
    def log(self, *arguments: object, **_more: object) -> None:
        pass


@dataclass
class Page:
    """The receiver and a browser that shows it."""

    app: Flask
    browser: Chrome
    server: BaseWSGIServer

    @property
    def store(self) -> Store:
        return self.app.extensions["receiver"].store  # type: ignore[no-any-return]

    def open(self, path: str = "/") -> None:
        name, secret = ACT
        self.browser.get(f"http://{name}:{secret}@{HOST}:{self.server.port}{path}")

    def look(self) -> None:
        """Let the page look for news now, as it does when its tab comes to the front."""
        self.browser.execute_script('document.dispatchEvent(new Event("visibilitychange"))')

    def press(self, keys: str) -> None:
        self.browser.switch_to.active_element.send_keys(keys)

    def find(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.find(selector).text

    @property
    def focused(self) -> str:
        return self.browser.switch_to.active_element.get_attribute("id") or ""

    def wait(self, condition: Callable[[], Any], seconds: float = 30) -> None:
        between = [
            NoSuchElementException,
            StaleElementReferenceException,
        ]  # two pages, or before and after news
        WebDriverWait(self.browser, seconds, 0.05, between).until(lambda _browser: condition())

    def complaints(self) -> list[dict[str, Any]]:
        """Return what the browser wrote on its console since the last time."""
        return list(self.browser.get_log("browser"))  # type: ignore[no-untyped-call]

    def emulate(self, *, width: int = 1280, dark: bool = False) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    flag = f"--host-resolver-rules=MAP {HOST} 127.0.0.1"
    with chromium(tmp_path_factory.mktemp("chromium"), flag) as driver:
        yield driver


@pytest.fixture
def page(sqlite_database: str, browser: Chrome) -> Iterator[Page]:
    """Serve a receiver; at the end the browser must have had nothing to complain of."""
    app = create_app(settings(sqlite_database))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    page = Page(app, browser, server)
    page.emulate()
    yield page
    complaints = page.complaints()
    browser.get("about:blank")
    server.shutdown()
    thread.join()
    server.server_close()
    app.extensions["receiver"].close()
    assert complaints == []


def test_new_incident_appears_without_reload(page: Page) -> None:
    page.open()
    assert page.text(".empty h2") == "Nothing is firing"
    page.browser.execute_script("window.same = true")
    page.press("/")
    page.press("typed")
    accept(page.app, event())
    page.wait(lambda: page.browser.title == "(1) Incidents · Fleetwatch")
    assert page.text("#count") == "1 firing"
    assert "Host db1 does not answer" in page.text("#row-1.new")
    assert "icon-firing" in (page.find("link[rel=icon]").get_attribute("href") or "")
    assert page.browser.execute_script("return window.same")
    assert (page.focused, page.find("#search").get_attribute("value")) == ("search", "typed")
    page.wait(lambda: page.text("#fresh") == "updated 1 s ago")


def test_hidden_tab_does_not_look(page: Page) -> None:
    page.open()
    page.browser.execute_script(
        "Object.defineProperty(document, 'hidden', {value: true, configurable: true, writable: true})"
    )
    page.look()
    accept(page.app, event())
    page.wait(lambda: page.text("#fresh") == "updated 6 s ago")
    assert page.text("#count") == "Nothing is firing"
    page.browser.execute_script("document.hidden = false")
    page.look()
    page.wait(lambda: page.text("#count") == "1 firing")


def test_news_moves_neither_focus_nor_scroll(page: Page) -> None:
    accept(page.app, *(event(number) for number in range(1, 61)))
    page.open()
    row = page.find("#incident-30")
    page.browser.execute_script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].focus()", row)
    before = row.rect["y"] - page.browser.execute_script("return scrollY")
    accept(page.app, *(event(number) for number in range(100, 110)))  # older: above all others
    page.look()
    page.wait(lambda: page.text("#count") == "70 firing")
    assert page.focused == "incident-30"
    after = page.find("#incident-30").rect["y"] - page.browser.execute_script("return scrollY")
    assert after == pytest.approx(before, abs=2)


def test_lost_connection_is_told(page: Page) -> None:
    page.open()
    page.browser.execute_cdp_cmd("Network.enable", {})
    network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": True, **network})
    page.look()
    page.wait(lambda: page.text("#fresh") == "connection lost")
    assert page.find("#connection").get_attribute("textContent") == "connection lost"
    page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": False, **network})
    page.look()
    page.wait(lambda: page.text("#fresh").startswith("updated"))
    (complaint,) = page.complaints()
    assert "ERR_INTERNET_DISCONNECTED" in complaint["message"]


def test_keyboard(page: Page) -> None:
    accept(page.app, event(1), event(2), event(3))
    page.open()
    steps = []
    for key in "jjjjk":
        page.press(key)
        steps.append(page.focused)
    assert steps == [f"incident-{number}" for number in (3, 2, 1, 1, 2)]
    page.press(Keys.ENTER)
    page.wait(lambda: page.browser.current_url.endswith("/incidents/2"))
    page.press("n")
    assert page.focused == "note"
    page.press("jua?/")
    assert page.find("#note").get_attribute("value") == "jua?/"
    page.press(Keys.TAB)
    page.press("u")
    page.wait(lambda: page.browser.title.startswith("(3)"))
    page.press("ja")
    page.wait(lambda: page.browser.current_url.endswith("/incidents/3#acknowledge"))
    assert page.focused == "acknowledge"
    page.press("?")
    assert page.find("#help").is_displayed()
    page.press(Keys.ESCAPE)
    assert not page.find("#help").is_displayed()
    page.press("?")
    page.find("#shortcuts").click()
    page.press(Keys.ESCAPE)
    page.open()
    page.press("/")
    assert page.focused == ""
    page.browser.execute_script("localStorage.clear()")


def test_skip_link_comes_first(page: Page) -> None:
    page.open()
    page.press(Keys.TAB)
    assert page.browser.switch_to.active_element.text == "Skip to content"
    page.press(Keys.ENTER)
    assert page.focused == "main"


def test_acknowledge_while_somebody_else_writes(page: Page) -> None:
    accept(page.app, event())
    page.open("/incidents/1#acknowledge")
    page.press(Keys.ENTER)
    page.wait(lambda: "acknowledged by ada" in page.text("#title"))
    assert page.store.incident(1).acknowledged_by == "ada"
    assert page.browser.current_url.endswith("/incidents/1"), "a reload does not say it again"
    page.press("n")
    page.press("half a no")
    page.store.resolve(1, "grace", page.app.extensions["receiver"].router)
    page.look()
    page.wait(lambda: "resolved" in page.text("#title"))
    assert "Resolved by grace" in page.text("#timeline")
    page.press("te")
    page.find("#note").submit()
    page.wait(lambda: "half a note" in page.text("#timeline"))


def test_without_javascript(page: Page) -> None:
    accept(page.app, event(1), event(2, labels={"severity": "warning"}))
    park(page.store)
    page.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page.open()
        assert not page.find("#fresh").is_displayed()
        assert not page.find("#help-open").is_displayed()
        page.find("#search").send_keys("db2", Keys.ENTER)
        page.wait(lambda: page.text("#list li").startswith("WARNING"))
        page.find("#incident-2").click()
        page.wait(lambda: page.find("#acknowledge"))
        page.find("#acknowledge").click()
        page.wait(lambda: "acknowledged by ada" in page.text("#title"))
        page.find("#resolve summary").click()
        page.find("#resolve button").click()
        page.wait(lambda: "Resolved by ada" in page.text("#timeline"))
        page.find("#nav-dead-letters").click()
        page.wait(lambda: page.text("h1") == "2 dead letters")
        page.find("#letter-1 button").click()
        page.wait(lambda: page.text("h1") == "1 dead letter")
    finally:
        page.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_looks(page: Page, tmp_path: Path) -> None:
    """Accessible in both schemes, dark when wanted, and no wider than a small telephone."""
    accept(
        page.app,
        event(1),
        event(2, labels={"severity": "warning"}, annotations={"runbook_url": "https://example.org/" + LONG}),
        event(3, labels={"severity": "info", "host": LONG, LONG: LONG}, annotations={"summary": LONG}),
        event(4, labels={"severity": LONG}, annotations={"description": f"{LONG} {LONG}"}),
    )
    park(page.store, LONG)
    page.store.acknowledge(1, "grace")
    page.store.add_note(1, "grace", LONG)
    for path in ("/", "/?text=nothing", "/incidents/1", "/incidents/2", "/incidents/3", "/dead-letters"):
        page.emulate(width=360)
        page.open(path)
        widest = page.browser.execute_script("return document.documentElement.scrollWidth")
        assert widest <= 360, f"{path} is {widest} pixels wide"
        pictures = []
        for dark in (False, True):
            page.emulate(dark=dark)
            picture = page.browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
            pictures.append(base64.b64decode(picture["data"]))
            name = path.strip("/").replace("/", "-").replace("?", "-") or "incidents"
            (tmp_path / f"{name}-{'dark' if dark else 'light'}.png").write_bytes(pictures[-1])
            axe = Axe(page.browser)
            axe.inject()
            found = axe.run(options={"runOnly": WCAG})["violations"]
            assert found == [], axe.report(found)
        assert pictures[0] != pictures[1]
