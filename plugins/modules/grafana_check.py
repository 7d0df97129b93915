#!/usr/bin/python
# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""Ansible module: find mistakes in Grafana's settings that Grafana itself would pass over."""

from __future__ import annotations

DOCUMENTATION = r"""
module: grafana_check
short_description: Find mistakes in Grafana's settings before they are live
description:
  - Grafana has no command that checks its configuration, and it passes over a section or key that it does
    not know.
    This module compares the site's own settings with the lists that the installed Grafana carries,
    C(conf/defaults.ini) and C(conf/sample.ini).
  - Checks that certificate and key exist, belong together, and can be read by the service.
  - What only Grafana can know (whether it reaches its database, say) shows when it starts; then
    M(fleetwatch.monitoring.verified_service) puts the old settings back.
options:
  home:
    description: Folder of the installed Grafana.
    type: path
    required: true
  settings:
    description:
      - The settings to compare, as section to key to value. Sections whose keys cannot be listed
        (C(plugin.*),
        C(auth.*), C(feature_toggles)) are not compared.
    type: dict
    default: {}
  certificate:
    description: Certificate file of the server, if it speaks TLS.
    type: path
  key:
    description: Key file that belongs to it.
    type: path
  user:
    description: User that must be able to read both.
    type: str
    default: grafana
attributes:
  check_mode:
    description: Changes nothing anyway. A Grafana that is not installed yet is passed over in check mode.
    support: full
author: The Fleetwatch authors (@fleetwatch)
"""

EXAMPLES = r"""
- name: Check the site's own settings
  fleetwatch.monitoring.grafana_check:
    home: /usr/share/grafana
    settings:
      smtp: {enabled: true, host: "mail.example.com:587"}
"""

RETURN = r""" # """

import difflib  # noqa: E402 - Ansible's documentation blocks come first
import pwd  # noqa: E402
import re  # noqa: E402
import ssl  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

LISTS = ("conf/defaults.ini", "conf/sample.ini")
OPEN_SECTIONS = re.compile(
    r"plugin\..*|auth\..*|feature_toggles(\..*)?|log\..*|tracing(\..*)?|enterprise.*|DEFAULT"
)
_SECTION = re.compile(r"\[([^\]]+)\]")
_KEY = re.compile(r"[;#]?\s?([A-Za-z0-9_.-]+)\s*=")


def known_settings(home: Path) -> dict[str, set[str]]:
    """Return section -> keys of the lists that a Grafana carries; commented ones count."""
    known: dict[str, set[str]] = {}
    for name in LISTS:
        path = home / name
        if not path.is_file():
            continue
        section = "DEFAULT"
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if found := _SECTION.match(line.strip()):
                section = found[1].strip()
                known.setdefault(section, set())
            elif found := _KEY.match(line.strip()):
                known.setdefault(section, set()).add(found[1])
    return known


def unknown_settings(settings: dict[str, Any], known: dict[str, set[str]]) -> list[str]:
    """Return a sentence for each section and key that this Grafana does not list."""
    problems = []
    for section, values in settings.items():
        if OPEN_SECTIONS.fullmatch(section):
            continue
        if section not in known:
            problems.append(f"this Grafana has no section [{section}]{_suggest(section, known)}")
            continue
        problems += [
            f"this Grafana has no {key} in the section [{section}]{_suggest(key, known[section])}"
            for key in values or {}
            if key not in known[section]
        ]
    return problems


def _suggest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""


def certificate_problem(certificate: str, key: str) -> str:
    """Return why a certificate and a key cannot be used, or an empty string."""
    for setting, path in (("grafana_tls_certificate", certificate), ("grafana_tls_key", key)):
        if not Path(path).is_file():
            return f"{setting}: there is no file {path} on this host"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        return f"grafana_tls_certificate and grafana_tls_key cannot be used together: {reason}"
    return ""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "home": {"type": "path", "required": True},
            "settings": {"type": "dict", "default": {}},
            "certificate": {"type": "path"},
            "key": {"type": "path", "no_log": False},
            "user": {"type": "str", "default": "grafana"},
        },
        required_together=[("certificate", "key")],
        supports_check_mode=True,
        no_log=True,
    )
    params = module.params
    problems: list[str] = []
    known = known_settings(Path(params["home"]))
    if known:
        found = unknown_settings(params["settings"], known)
        problems += [f"grafana_extra_settings: {problem}" for problem in found]
    elif not module.check_mode:
        problems.append(f"{params['home']} holds no Grafana: there is no conf/defaults.ini in it")
    if params["certificate"]:
        problem = certificate_problem(params["certificate"], params["key"])
        problems += [problem] if problem else unreadable(module, [params["certificate"], params["key"]])
    if problems:
        module.fail_json(msg="Nothing of the configuration was changed. " + "; ".join(problems) + ".")
    module.exit_json(changed=False)


def unreadable(module: AnsibleModule, paths: list[str]) -> list[str]:
    """Return a sentence for each file that the service's user, if there is one yet, cannot read."""
    user = module.params["user"]
    try:
        pwd.getpwnam(user)
    except KeyError:
        return []
    return [
        f"the user {user} cannot read {path}; let its group read it and enter the folders above it"
        for path in paths
        if module.run_command(["runuser", "-u", user, "--", "test", "-r", path])[0]
    ]


if __name__ == "__main__":
    main()
