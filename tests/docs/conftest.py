"""YAML as Ansible writes it."""

from __future__ import annotations

from typing import Any

import yaml


class Unsafe(str):
    """A text that Ansible is not to template."""

    __slots__ = ()


class Loader(yaml.SafeLoader):
    """Reads YAML with the tag ``!unsafe``."""


def _unsafe(loader: yaml.SafeLoader, node: yaml.Node) -> Unsafe:
    assert isinstance(node, yaml.ScalarNode)
    return Unsafe(loader.construct_scalar(node))


Loader.add_constructor("!unsafe", _unsafe)
yaml.SafeDumper.add_representer(Unsafe, lambda dumper, text: dumper.represent_scalar("!unsafe", str(text)))


def load(text: str) -> Any:
    """Return what a text of YAML says."""
    return yaml.load(text, Loader)  # noqa: S506 - it is a safe one
