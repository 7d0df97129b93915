#!/usr/bin/python
# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""Ansible module: a vendor's apt repository, trusted for one pinned key only."""

from __future__ import annotations

DOCUMENTATION = r"""
module: signed_repository
short_description: Have a vendor's signed apt repository, trusted by the fingerprint of its key
description:
  - Fetches the vendor's key, keeps of it only the keys whose fingerprints are given, and writes a source
    file that
    trusts this repository by these keys alone (C(Signed-By)).
  - The repository's index is read at once. When that fails, the files are removed again and the task fails
    with
    apt's words, so that a repository that cannot be read never breaks the host's other updates.
  - When the files are there and right, nothing is fetched.
options:
  name:
    description: Name of the files below C(/etc/apt).
    type: str
    required: true
  uri:
    description: Address of the repository, or of a mirror.
    type: str
    required: true
  suite:
    description: Suite, such as V(stable).
    type: str
    required: true
  components:
    description: Components of the suite.
    type: list
    elements: str
    required: true
  key_url:
    description: Address of the key, or an absolute path on the host.
    type: str
    required: true
  fingerprints:
    description: Fingerprints of the keys to trust, 40 or 64 hexadecimal digits; spaces do not matter.
    type: list
    elements: str
    required: true
attributes:
  check_mode:
    description: Predicts the change, without the network.
    support: full
  diff_mode:
    support: full
author: The Fleetwatch authors (@fleetwatch)
"""

EXAMPLES = r"""
- name: Use Grafana's packages
  fleetwatch.monitoring.signed_repository:
    name: grafana
    uri: https://apt.grafana.com
    suite: stable
    components: [main]
    key_url: https://apt.grafana.com/gpg.key
    fingerprints: [B53AE77BADB630A683046005963FA27710458545]
"""

RETURN = r""" # """

import re  # noqa: E402 - Ansible's documentation blocks come first
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible.module_utils.urls import open_url  # noqa: E402
from ansible_collections.fleetwatch.monitoring.plugins.module_utils import openpgp  # noqa: E402

APT = Path("/etc/apt")
TIMEOUT = 30
MODE = 0o644
FINGERPRINT = re.compile(r"[0-9A-F]{40}|[0-9A-F]{64}")


class RepositoryError(Exception):
    """What went wrong and the cure."""


def fingerprints_of(texts: list[str]) -> set[str]:
    """Return fingerprints as the key files are compared with."""
    result = {re.sub(r"\s", "", text).upper().removeprefix("0X") for text in texts}
    for text in result:
        if not FINGERPRINT.fullmatch(text):
            raise RepositoryError(f"fingerprints: {text!r} is not one; it has 40 (or 64) hexadecimal digits.")
    if not result:
        raise RepositoryError("fingerprints: give at least one, as the vendor publishes it.")
    return result


def source_text(params: dict[str, Any], key: Path) -> str:
    """Return the source file, in apt's deb822 format."""
    lines = {
        "Types": "deb",
        "URIs": params["uri"],
        "Suites": params["suite"],
        "Components": " ".join(params["components"]),
        "Signed-By": str(key),
    }
    if any(re.search(r"[\r\n]", value) for value in lines.values()):
        raise RepositoryError("uri, suite and components must be in one line.")
    return "# Written by Ansible; changes made here are lost.\n" + "".join(
        f"{name}: {value}\n" for name, value in lines.items()
    )


def fetched(url: str) -> bytes:
    """Return what the address of the key names."""
    try:
        if url.startswith("/"):
            return Path(url).read_bytes()
        with open_url(url, timeout=TIMEOUT, http_agent="fleetwatch") as response:
            content: bytes = response.read()
            return content
    except (OSError, ValueError) as error:
        raise RepositoryError(
            f"Cannot fetch the key {url}: {' '.join(str(error).split())}. Check that this host reaches it or "
            "install from a release archive instead."
        ) from error


def trusted(content: bytes, wanted: set[str], where: str) -> bytes:
    """Return of a key file only the wanted keys."""
    try:
        found = openpgp.keys(content)
    except openpgp.KeyFileError as error:
        raise RepositoryError(f"{where}: {error}.") from error
    kept = b"".join(packets for name, packets in found.items() if name in wanted)
    if not kept:
        raise RepositoryError(
            f"{where} holds the key {', '.join(sorted(found))}, not {', '.join(sorted(wanted))}. Nothing was "
            "changed. Trust another key only if the vendor publishes its fingerprint."
        )
    return kept


def is_right(source: Path, text: str, key: Path, wanted: set[str]) -> bool:
    """Tell whether both files are there, with no other key than the wanted ones."""
    try:
        return source.read_text(encoding="utf-8") == text and set(openpgp.keys(key.read_bytes())) <= wanted
    except (OSError, openpgp.KeyFileError):
        return False


def read_index(module: AnsibleModule, source: Path) -> None:
    """Have apt read the index of this repository alone."""
    only = ["-o", f"Dir::Etc::SourceList={source}", "-o", "Dir::Etc::SourceParts=-"]
    code, out, err = module.run_command(
        ["apt-get", "update", *only, "-o", "APT::Get::List-Cleanup=0", "-o", "APT::Update::Error-Mode=any"],
        environ_update={"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
    )
    if code:
        lines = [line for line in f"{out}\n{err}".splitlines() if line.startswith(("E:", "Err:", "W:"))]
        raise RepositoryError(f"apt cannot read the repository; it was removed again. {' '.join(lines[:4])}")


def run(module: AnsibleModule, apt: Path = APT) -> dict[str, Any]:
    """Have the repository; return the result."""
    params = module.params
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", params["name"]):
        raise RepositoryError("name: use small letters, digits and . _ - only.")
    wanted = fingerprints_of(params["fingerprints"])
    source = apt / "sources.list.d" / f"{params['name']}.sources"
    key = apt / "keyrings" / f"{params['name']}.gpg"
    text = source_text(params, key)
    if is_right(source, text, key, wanted):
        return {"changed": False}
    before = source.read_text(encoding="utf-8") if source.is_file() else ""
    diff = {"before": before, "after": text, "before_header": str(source), "after_header": str(source)}
    if module.check_mode:
        return {"changed": True, "diff": diff}
    content = trusted(fetched(params["key_url"]), wanted, params["key_url"])
    earlier = {path: path.read_bytes() if path.is_file() else None for path in (key, source)}
    try:
        for path, data in ((key, content), (source, text.encode())):
            put(path, data)
        read_index(module, source)
    except BaseException:
        for path, old in earlier.items():
            put(path, old)
        raise
    return {"changed": True, "diff": diff}


def put(path: Path, content: bytes | None) -> None:
    """Replace a file in one step, or remove it."""
    if content is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    new.chmod(MODE)
    new.replace(path)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "uri": {"type": "str", "required": True},
            "suite": {"type": "str", "required": True},
            "components": {"type": "list", "elements": "str", "required": True},
            "key_url": {"type": "str", "required": True, "no_log": False},
            "fingerprints": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except (RepositoryError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
