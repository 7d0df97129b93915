"""The page: as the server sends it, and in a real browser, Debian's Chromium."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from typing import Any

import pytest
from axe_selenium_python import Axe
from flask import Flask
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait
from werkzeug.serving import WSGIRequestHandler, make_server

from fleetwatch.collector.usage import chart
from lab.browser import chromium
from tests.collector.usage.conftest import ODD, run

HOUR = "resource=cpu&start=2026-01-02T00:00&end=2026-01-02T01:00"
WCAG = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21aa"]}


# The chart


def test_lines_leave_gaps_and_dots() -> None:
    drawn = chart.draw([("a", {60: 0.0, 120: 100.0, 240: 50.0})], 0, 240, 60)
    [line] = drawn.lines
    # Two joined points, and one for itself.
    assert re.fullmatch(r"M[\d.]+ [\d.]+h0L[\d.]+ [\d.]+M[\d.]+ [\d.]+h0", line.path)
    low, high, middle = (float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", line.path))
    assert (low, high) == (chart.HEIGHT - chart.BOTTOM, chart.TOP)
    assert middle == (low + high) / 2
    assert line.points == [[60, 0.0], [120, 100.0], [240, 50.0]]


@pytest.mark.parametrize(
    ("highest", "top"), [(0, 1), (0.4, 1), (3, 5), (21, 25), (50, 50), (51, 100), (130, 200)]
)
def test_the_scale_fits(highest: float, top: float) -> None:
    drawn = chart.draw([("a", {60: highest})], 0, 60, 60)
    assert drawn.top == top
    assert [tick.text for tick in drawn.scale][-1] == f"{top:g} %"


@pytest.mark.parametrize(
    "length", [10, 60, 900, 3600, 86400, 7 * 86400, 30 * 86400, 400 * 86400, 4000 * 86400]
)
def test_times_have_a_few_ticks(length: int) -> None:
    start = 1_767_312_345.6
    drawn = chart.draw([("a", {})], start, start + length, 15)
    assert len(drawn.times) <= 9
    assert len(drawn.times) >= 3 or length < 300
    assert all(chart.LEFT <= tick.at <= chart.WIDTH - chart.RIGHT for tick in drawn.times)
    assert len({tick.text for tick in drawn.times}) == len(drawn.times)


# As the server sends it


@pytest.fixture(scope="module")
def app(prometheus: str) -> Iterator[Flask]:
    with run(prometheus) as app:
        yield app


@pytest.mark.slow
def test_a_name_can_do_no_harm(app: Flask) -> None:
    html = app.test_client().get(f"/?{HOUR}").text
    assert unescape(html).count(ODD) >= 2
    assert ODD not in html
    bad = "</script><script>alert(1)</script>"
    answer = app.test_client().get("/", query_string={"host": bad, "start": bad, "group": bad, "range": bad})
    assert answer.status_code == 400
    assert bad not in answer.text


@pytest.mark.slow
@pytest.mark.parametrize(("query", "status", "told"), [
    (HOUR.replace("01:00", "00:00"), 400, "start must be before end"),
    (f"{HOUR}&host=web9", 404, "Prometheus knows no host"),
    ("range=soon", 400, "is not a number of hours"),
    ("range=1", 404, "there is no cpu usage of any host"),
    (f"{HOUR}&resource=gpu", 200, "CPU usage of 4 hosts"),
])  # fmt: skip
def test_what_goes_wrong_is_told_beside_the_form(app: Flask, query: str, status: int, told: str) -> None:
    answer = app.test_client().get(f"/?{query.removeprefix('resource=cpu&') if 'gpu' in query else query}")
    assert (answer.status_code, told in unescape(answer.text)) == (status, True)
    assert '<form class="card filters"' in answer.text


@pytest.mark.slow
def test_the_chart_is_of_those_that_used_most(prometheus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetwatch.collector.usage.page.LINES", 2)
    monkeypatch.setattr("fleetwatch.collector.usage.page.ROWS", 3)
    with run(prometheus) as app:
        html = app.test_client().get(f"/?{HOUR}").text
    assert "The 2 hosts that used most, of 4." in html
    assert "and 1 more" in html
    assert len(re.findall(r'class="line c\d"', html)) == 2
    assert "41.5 %" in html


# In a browser


class Quiet(WSGIRequestHandler):
    def log(self, *arguments: object, **_more: object) -> None:
        pass


@dataclass
class Page:
    browser: Chrome
    url: str

    def open(self, query: str = HOUR) -> None:
        self.browser.get(f"{self.url}/?{query}")

    def find(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def wait_for(self, text: str) -> None:
        """Wait until the page that says it is there as a whole."""

        def there(browser: Chrome) -> bool:
            whole = browser.execute_script("return document.readyState") == "complete"
            return whole and text in self.find("#main").text

        between_two_pages = [NoSuchElementException, StaleElementReferenceException]
        WebDriverWait(self.browser, 30, 0.05, between_two_pages).until(there)

    def emulate(self, *, width: int = 1280, dark: bool = False, script: bool = True) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})

    def complaints(self) -> list[dict[str, Any]]:
        return list(self.browser.get_log("browser"))  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    # No other host can be reached: the page brings all that it needs.
    flag = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with chromium(tmp_path_factory.mktemp("chromium"), flag) as driver:
        yield driver


@pytest.fixture
def page(app: Flask, browser: Chrome) -> Iterator[Page]:
    """Serve the page; at the end the browser must have had nothing to complain of."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    found = Page(browser, f"http://127.0.0.1:{server.server_port}")
    found.emulate()
    yield found
    complaints = found.complaints()
    found.emulate()
    browser.get("about:blank")
    server.shutdown()
    thread.join()
    server.server_close()
    assert complaints == []


@pytest.mark.slow
@pytest.mark.parametrize("script", [True, False])
def test_the_form_is_enough(page: Page, *, script: bool) -> None:
    page.emulate(script=script)
    page.open()
    page.wait_for("CPU usage of 4 hosts")
    assert "26.5 %" in page.find(".figures").text
    assert len(page.browser.find_elements(By.CSS_SELECTOR, "#chart .line")) == 4
    page.find("input[name=host]").send_keys("web2")
    Select(page.find("select[name=group]")).select_by_visible_text("web")
    page.find("button.primary").click()
    page.wait_for("CPU usage of web2 in web")
    assert "21.5 %" in page.find(".figures").text
    page.find("input[value=disk] + span").click()
    page.find("button.primary").click()
    page.wait_for('there is no disk usage of host "web2"')
    page.complaints()  # of the 404
    Select(page.find("#range")).select_by_visible_text("hour")
    assert page.find("input[name=start]").is_displayed() is not script


@pytest.mark.slow
def test_the_chart_tells_values_by_keyboard_and_pointer(page: Page) -> None:
    page.open(f"{HOUR}&host=web1")
    svg = page.find("#chart svg")
    page.browser.execute_script("arguments[0].focus()", svg)
    svg.send_keys(Keys.HOME)
    readout = page.find("#readout")
    assert "web1 10.0 %" in readout.text  # at 00:00:15, the first step
    for _ in range(3):
        svg.send_keys(Keys.ARROW_RIGHT)
    assert "web1 11.0 %" in readout.text  # 00:01:00
    assert page.find("#cursor").get_attribute("visibility") == "visible"
    page.browser.execute_script("arguments[0].blur()", svg)
    assert readout.text == ""
    row = page.find("tr[data-line='0'] a")
    page.browser.execute_script("arguments[0].focus()", row)
    assert "chosen" in (page.find("path[data-line='0']").get_attribute("class") or "")


@pytest.mark.slow
def test_a_host_of_the_table_leads_to_its_own_page(page: Page) -> None:
    page.open()
    page.browser.find_element(By.LINK_TEXT, ODD).click()
    page.wait_for(f"CPU usage of {ODD}")
    assert "41.5 %" in page.find(".figures").text


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("query", [HOUR, f"{HOUR}&host=nowhere"])
def test_accessible_and_never_wider_than_the_window(page: Page, query: str, *, dark: bool) -> None:
    for width in (1280, 360):
        page.emulate(width=width, dark=dark)
        page.open(query)
        page.complaints()  # of the 404
        wide = page.browser.execute_script(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0
        axe = Axe(page.browser)
        axe.inject()
        violations = axe.run(options={"runOnly": WCAG})["violations"]
        assert violations == [], axe.report(violations)


@pytest.mark.slow
def test_an_axis_is_not_cut_off_on_a_phone(page: Page) -> None:
    page.emulate(width=360)
    page.open()
    cut = page.browser.execute_script(
        """const box = document.querySelector("#chart svg").getBoundingClientRect();
        return [...document.querySelectorAll("#chart text")].filter((text) => {
          const own = text.getBoundingClientRect();
          return own.left < box.left || own.right > box.right || own.bottom > box.bottom;
        }).map((text) => text.textContent)"""
    )
    assert cut == []
