"""Writes the reference of roles and plugins, ``docs/reference``, from what they say of themselves.

``python -m docs.generate`` (``make docs``) writes the pages; ``tests/docs`` compares them with the tree.
"""

from __future__ import annotations

import ast
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
REFERENCE = Path("docs/reference")
COLLECTION = "fleetwatch.monitoring"
WIDTH = 120

SHARED = "common"
"""The role that holds what the components share."""
PLUGIN_KINDS = {"module": "Modules", "lookup": "Lookups", "filter": "Filters"}
HEADER = "<!-- Written by `make docs`; change the source instead. -->\n\n"


def role_names() -> list[str]:
    """Return the names of all roles."""
    return sorted(path.parents[1].name for path in ROOT.glob("roles/*/meta/argument_specs.yml"))


def read_specs(role: str) -> dict[str, Any]:
    """Return the entry point ``main`` of a role's argument specs."""
    main: dict[str, Any] = _read(f"roles/{role}/meta/argument_specs.yml")["argument_specs"]["main"]
    return main


def read_defaults(role: str) -> dict[str, Any]:
    """Return a role's defaults, untemplated; empty for a role without any."""
    defaults: dict[str, Any] = _read(f"roles/{role}/defaults/main.yml") or {}
    return defaults


def pages() -> dict[Path, str]:
    """Return the text of every generated page, by its path below the top of the tree."""
    roles = {REFERENCE / "roles" / f"{role}.md": _role_page(role) for role in role_names()}
    texts = {REFERENCE / "roles" / "README.md": _index(), **roles, REFERENCE / "plugins.md": _plugins_page()}
    return {path: HEADER + text.rstrip() + "\n" for path, text in texts.items()}


def markdown(text: str) -> str:
    """Return a text with Ansible's markup, such as ``C(code)``, as Markdown."""
    text = re.sub(r"[CVEO]\((?:[\w.]+#\w+:)?(.+?)\)(?=[\s.,;:)]|$)", r"`\1`", text)
    text = re.sub(r"RV\((?:ignore:)?(.+?)\)", r"`\1`", text)
    return re.sub(r"[MP]\((.+?)(?:#\w+)?\)", r"`\1`", text)


def _read(path: str) -> Any:
    file = ROOT / path
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else None


def _sentences(description: str | list[str]) -> str:
    return markdown(" ".join([description] if isinstance(description, str) else description))


def _fill(text: str, indent: str = "", first: str | None = None) -> str:
    return textwrap.fill(
        " ".join(text.split()),
        WIDTH,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _role_page(role: str) -> str:
    spec = read_specs(role)
    options: dict[str, Any] = spec.get("options") or {}
    alerting = {name: option for name, option in options.items() if _is_of_alert(role, name)}
    settings = {name: option for name, option in options.items() if name not in alerting}
    parts = [f"# {role}\n", _fill(f"{markdown(spec['short_description'])}.")]
    if "description" in spec:
        parts.append("\n" + _fill(_sentences(spec["description"])))
    parts += _monitoring(role)
    defaults = read_defaults(role)
    parts.append("\n## Settings\n")
    parts += _options(settings, defaults) if settings else ["None."]
    if alerting:
        where = "Prometheus applies these, so set them for its hosts or for all."
        parts += ["\n## When its alerts fire\n", where, "", *_options(alerting, defaults)]
    return "\n".join(parts)


def _is_of_alert(role: str, name: str) -> bool:
    return name.startswith(f"{role}_alert_")


def _options(options: Mapping[str, Any], defaults: Mapping[str, Any], depth: int = 0) -> Iterator[str]:
    indent = "  " * depth
    for name, option in options.items():
        facts = [option.get("type", "str")]
        if facts[0] == "list":
            facts = [f"list of {option.get('elements', 'raw')}"]
        if "choices" in option:
            choices = " or ".join(f"`{choice}`" for choice in option["choices"])
            facts = [f"list of {choices}" if facts[0].startswith("list") else choices]
        if option.get("required"):
            facts.append("**required**")
        elif name in defaults:
            facts.append(f"default `{_inline(defaults[name])}`")
        if option.get("no_log"):
            facts.append("secret")
        text = f"`{name}` ({', '.join(facts)}): {_sentences(option['description'])}"
        yield _fill(text, f"{indent}  ", f"{indent}- ")
        yield from _options(option.get("options") or {}, {}, depth + 1)


def _inline(value: Any) -> str:
    if isinstance(value, str) and value and _is_plain(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _is_plain(value: str) -> bool:
    """Tell whether YAML reads a text as itself, without quotes; templates are shown without, too."""
    return value.startswith("{{") or yaml.safe_load(value) == value


def _monitoring(role: str) -> Iterator[str]:
    jobs = [job["job"] for job in _read(f"roles/{role}/monitoring/scrape.yml") or []]
    if jobs:
        yield "\nScrape jobs: " + ", ".join(f"`{job}`" for job in jobs) + "."
    rules = ROOT / "roles" / role / "monitoring" / "rules.yml"
    if rules.exists():
        names = re.findall(r"^ *- alert: (\w+)", rules.read_text(encoding="utf-8"), re.MULTILINE)
        links = ", ".join(f"[{name}](../../runbooks/{name}.md)" for name in names)
        yield "\n" + _fill(f"Alerts: {links}.")


def _index() -> str:
    parts = [
        "# Roles\n",
        _fill(
            "A role that has a folder `monitoring/` is a component: hosts in the group of the same name get "
            f"it. The settings of `{SHARED}` count for all of them. `preflight` runs first, on every host; "
            "`program` and `python_program` are used by the other roles."
        ),
        "",
    ]
    briefs = {role: markdown(read_specs(role)["short_description"]) for role in role_names()}
    parts += [f"- [{role}]({role}.md): {brief}." for role, brief in briefs.items()]
    return "\n".join(parts)


def _plugins_page() -> str:
    parts = [
        "# Plugins\n",
        _fill(f"All options and examples: `ansible-doc -t <kind> {COLLECTION}.<name>`."),
    ]
    for kind, title in PLUGIN_KINDS.items():
        parts += [f"\n## {title}\n"]
        parts += [
            _fill(f"`{doc['name']}`: {markdown(doc['short_description'])}.", "  ", "- ")
            for doc in _plugin_docs(kind)
        ]
    return "\n".join(parts)


def _plugin_docs(kind: str) -> Iterator[dict[str, Any]]:
    """Yield the documentation of each plugin of a kind, by name."""
    directory = ROOT / "plugins" / ("modules" if kind == "module" else kind)
    if kind == "filter":  # several to a Python file, so each is documented in a file of its own
        for path in sorted(directory.glob("*.yml")):
            yield yaml.safe_load(path.read_text(encoding="utf-8"))["DOCUMENTATION"]
        return
    for path in sorted(directory.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DOCUMENTATION":
                doc = yaml.safe_load(ast.literal_eval(node.value))
                yield {**doc, "name": doc.get("name") or doc["module"]}


def main() -> None:
    """Write the pages, and remove those of roles that are gone."""
    texts = pages()
    for old in (ROOT / REFERENCE / "roles").glob("*.md"):
        if old.relative_to(ROOT) not in texts:
            old.unlink()
    for path, text in texts.items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
