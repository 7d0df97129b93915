"""Pictures of all dashboards, as a browser draws them: ``python -m lab.screenshots [FOLDER]``.

A dashboard that draws no panel, or a panel that shows an error, is a problem. What is looked for in Grafana's
pages are the names that its own tests go by, as in the npm package @grafana/e2e-selectors.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from lab import CACHE, ROOT, STATE, grafana, inventory
from lab.browser import chromium
from lab.console import Console, LabError

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

PICTURES = CACHE / "screenshots"
"""Where the pictures go unless a folder is named."""
WIDTH, HEIGHT = 1600, 6000
"""Pixels of the window; so high that every panel is in sight, since Grafana draws no others."""
SECONDS = 60
"""How long a dashboard may take to be drawn."""
PANEL = '[data-testid^="data-testid Panel header"]'
LOADING = '[aria-label="Panel loading bar"]'
FAILED = '[data-testid="data-testid Panel status error"]'
_LOG_IN = """
const [login, done] = arguments;
fetch("login", {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(login)})
  .then(answer => done(answer.status), error => done(String(error)));
"""


@dataclass(frozen=True)
class Site:
    """A Grafana and who logs in.

    Attributes:
        url: without a slash at its end.
        user: login.
        password: of the user.

    """

    url: str
    user: str
    password: str = field(repr=False)


def take(
    browser: Chrome, site: Site, uids: Sequence[str], folder: Path, seconds: float = SECONDS
) -> list[str]:
    """Write ``<uid>.png`` for each dashboard and return what is wrong with them.

    Args:
        browser: a browser.
        site: where the dashboards are.
        uids: the dashboards.
        folder: where the pictures go; it exists.
        seconds: how long each may take.

    Raises:
        LabError: the login is refused.

    """
    browser.get(f"{site.url}/login")
    login = {"user": site.user, "password": site.password}
    status = browser.execute_async_script(_LOG_IN, login)
    if status != 200:  # noqa: PLR2004 - it is what HTTP calls fine
        raise LabError(f"Grafana at {site.url} refuses the login of {site.user}: {status}")
    size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    problems = []
    for uid in uids:
        browser.get(f"{site.url}/d/{uid}?kiosk&from=now-15m&to=now")
        problems += [f"{uid}: {problem}" for problem in _problems(browser, seconds)]
        picture: Any = browser.execute_cdp_cmd("Page.captureScreenshot", {})
        (folder / f"{uid}.png").write_bytes(base64.b64decode(picture["data"]))
    return problems


def _problems(browser: Chrome, seconds: float) -> list[str]:
    """Wait until the dashboard is drawn and return what is wrong with it."""
    calm = 0

    def drawn(shown: Chrome) -> bool:
        nonlocal calm
        panels = shown.find_elements(By.CSS_SELECTOR, PANEL)
        calm = calm + 1 if panels and not shown.find_elements(By.CSS_SELECTOR, LOADING) else 0
        return calm > 1  # between being there and loading a panel looks finished

    try:
        WebDriverWait(browser, seconds, 0.5).until(drawn)
    except TimeoutException:
        panels = len(browser.find_elements(By.CSS_SELECTOR, PANEL))
        return [f"{panels} panels, and not all are drawn after {seconds:.0f} s"]
    failed = browser.find_elements(By.CSS_SELECTOR, FAILED)
    return [
        f"a panel shows an error: {panel.get_attribute('title') or 'no reason given'}" for panel in failed
    ]


def main(arguments: Sequence[str]) -> None:
    """Take pictures of the dashboards of the lab's Grafana."""
    console = Console()
    if len(arguments) > 1:
        raise LabError("usage: python -m lab.screenshots [FOLDER]")
    folder = Path(arguments[0]) if arguments else PICTURES
    found = inventory.read()
    url = next((entry.url for entry in inventory.published(found) if entry.endpoint.group == "grafana"), None)
    if grafana.variables(STATE) is None or url is None:
        raise LabError("the lab has no Grafana: make lab GRAFANA_RELEASE=<file or URL>")
    password = yaml.safe_load((STATE / "secrets.yml").read_text(encoding="utf-8"))["grafana_admin_password"]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile, chromium(Path(profile)) as browser:
        problems = take(browser, Site(url, "admin", password), shipped(), folder)
    console.say("\n".join([*problems, f"Pictures of {len(shipped())} dashboards: {folder}"]))
    if problems:
        raise LabError(f"{len(problems)} problems")


def shipped() -> list[str]:
    """Return the uids of all dashboards that the roles ship."""
    files = sorted((ROOT / "roles").glob("*/monitoring/dashboards/*.json"))
    return [json.loads(file.read_text(encoding="utf-8"))["uid"] for file in files]


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except LabError as error:
        sys.exit(f"ERROR: {error}")
