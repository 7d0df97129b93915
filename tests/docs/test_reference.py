"""The settings are specified, described and on the reference pages, and the pages name no others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs import generate
from tests.docs.conftest import load

ROLES = generate.role_names()
PAGES = sorted([*generate.ROOT.glob("*.md"), *generate.ROOT.glob("docs/**/*.md")])
# Variables that are settings of plays or registered results, not of roles.
NOT_OF_ROLES = {"verify_timeout", "verify_clock_tolerance", "verify_channels"}


def all_options(options: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, option in options.items():
        yield name, option
        yield from all_options(option.get("options") or {})


def options_of(role: str) -> dict[str, dict[str, Any]]:
    options: dict[str, dict[str, Any]] = generate.read_specs(role).get("options") or {}
    return options


@cache
def settings() -> set[str]:
    jobs = {
        job["job"]
        for path in generate.ROOT.glob("roles/*/monitoring/scrape.yml")
        for job in yaml.safe_load(path.read_text())
    }
    overrides = {f"{job}_{noun}" for job in jobs for noun in ("port", "scheme", "metrics_path", "scrape")}
    return {*chain(*(options_of(role) for role in ROLES)), *overrides}


def test_committed_pages_are_up_to_date() -> None:
    written = {path for path in PAGES if path.read_text().startswith(generate.HEADER)}
    expected = generate.pages()
    assert written == {generate.ROOT / path for path in expected}, "run make docs"
    stale = [str(path) for path, text in expected.items() if (generate.ROOT / path).read_text() != text]
    assert not stale, "run make docs"


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_specs_agree(role: str) -> None:
    specs, defaults = options_of(role), generate.read_defaults(role)
    optional = {name for name, option in specs.items() if not option.get("required")}
    assert set(defaults) == optional


@pytest.mark.parametrize("role", ROLES)
def test_every_option_is_typed_and_described(role: str) -> None:
    for name, option in all_options(options_of(role)):
        assert option.get("type"), name
        assert option["type"] != "list" or option.get("elements"), name
        sentences = option.get("description")
        for sentence in [sentences] if isinstance(sentences, str) else sentences or [""]:
            assert sentence.endswith("."), name


@pytest.mark.parametrize("role", ROLES)
def test_every_role_has_a_short_description(role: str) -> None:
    assert generate.read_specs(role)["short_description"]


def test_every_port_is_on_the_page_of_ports() -> None:
    page = (generate.ROOT / generate.REFERENCE / "ports.md").read_text()
    for role in ROLES:
        for name, value in generate.read_defaults(role).items():
            if name.endswith("_port") and isinstance(value, int):  # one that follows another is no listener
                assert f"`{name}`" in page
                assert re.search(rf"\b{value}\b.*`{name}`", page), name


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(generate.ROOT)))
def test_settings_named_on_a_page_exist(path: Path) -> None:
    known = settings()
    owners = "|".join(sorted({*ROLES, "alert_dispatcher", "fleetwatch", "verify"} - {"common"}))
    text = path.read_text()
    blocks = re.findall(r"^```ya?ml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    named = {
        name for block in blocks for name in re.findall(rf"^[\s#-]*((?:{owners})_\w+):", block, re.MULTILINE)
    }
    named |= set(
        re.findall(
            rf"`((?:{owners})_(?:\w+_)?(?:port|scheme|scrape|version|method|url|checksums|for"
            rf"|threshold|labels|address|dir|download|keep|flags|overrides))`",
            text,
        )
    )
    assert named - {*ROLES} <= known | NOT_OF_ROLES  # the group redis_exporter is no setting of redis


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(generate.ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(
        r"\]\((?!https?://|mailto:)([^)\s]+)\)|(?:src|srcset)=\"(?!https?://)([^\"]+)\"", text
    ):
        target, _, anchor = (link[0] or link[1]).partition("#")
        file = (path.parent / target) if target else path
        assert file.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, link


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(generate.ROOT)))
def test_yaml_on_a_page_is_yaml(path: Path) -> None:
    for block in re.findall(r"^```ya?ml\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL):
        load(block)


def test_markup_becomes_markdown() -> None:
    text = "See M(fleetwatch.monitoring.release_archive), C({arch}) and O(x.y#module:validate); V(null)."
    expected = "See `fleetwatch.monitoring.release_archive`, `{arch}` and `validate`; `null`."
    assert generate.markdown(text) == expected
