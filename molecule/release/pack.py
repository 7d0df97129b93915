"""Packs release archives as upstream publishes them, with Debian's programs in them.

``pack.py DIRECTORY`` runs on a Debian host and needs nothing but its apt. It leaves in DIRECTORY

- ``<component>-<version>.linux-<arch>.tar.gz`` for each component, from each Debian release;
- ``broken/``: the newest node_exporter, with one byte changed on its way;
- ``foreign/``: the newest node_exporter, built for another architecture than the name says;
- ``alertmanager-templates.tar.gz``: what Debian's Alertmanager needs beside its program;
- ``releases.json``: versions and checksums, for Molecule's inventory.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

OLD, NEW = "bookworm", "trixie"
PACKAGES = {
    "prometheus": "prometheus",
    "alertmanager": "prometheus-alertmanager",
    "pushgateway": "prometheus-pushgateway",
    "node_exporter": "prometheus-node-exporter",
}
FURTHER_PACKAGES = {OLD: [], NEW: ["promtool"]}
# Component -> program in the archive -> its path in the package.
PROGRAMS = {
    "prometheus": {"prometheus": "usr/bin/prometheus", "promtool": "usr/bin/promtool"},
    "alertmanager": {"alertmanager": "usr/bin/prometheus-alertmanager", "amtool": "usr/bin/amtool"},
    "pushgateway": {"pushgateway": "usr/bin/prometheus-pushgateway"},
    "node_exporter": {"node_exporter": "usr/bin/prometheus-node-exporter"},
}
TEMPLATES = "usr/share/prometheus/alertmanager"
OTHER_ARCH = {"amd64": "arm64", "arm64": "amd64"}


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Return what a command prints."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=cwd).stdout.strip()


def extend_apt(arch: str, foreign: str) -> None:
    """Let apt know both releases, and the newer one for another architecture."""
    words = Path("/etc/apt/sources.list").read_text(encoding="utf-8").split()
    uri = words[words.index("deb") + 1]
    sources = f"deb [arch={arch}] {uri} {OLD} main\ndeb [arch={arch},{foreign}] {uri} {NEW} main\n"
    Path("/etc/apt/sources.list").write_text(sources, encoding="utf-8")
    run("dpkg", "--add-architecture", foreign)
    run("apt-get", "-qq", "update")


def unpack(tree: Path, packages: list[str], release: str) -> dict[str, str]:
    """Unpack packages into the new directory ``tree``; return the upstream version of each."""
    versions = {}
    with tempfile.TemporaryDirectory() as folder:
        wanted = [f"{package}/{release}" for package in packages]
        run("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *wanted, cwd=Path(folder))
        for file in Path(folder).glob("*.deb"):
            run("dpkg-deb", "--extract", file, tree)
            name, version = run("dpkg-deb", "--show", "--showformat=${Package} ${Version}", file).split()
            versions[name] = version.partition("-")[0].partition("+")[0]  # 2.42.0+ds-5+deb12u1
    return versions


def pack(archive: Path, tree: Path, component: str) -> str:
    """Write a component's archive, in upstream's layout; return its SHA-256."""
    top = archive.name.removesuffix(".tar.gz")
    with tarfile.open(archive, "x:gz", compresslevel=1) as tar:
        for program, path in PROGRAMS[component].items():
            tar.add(tree / path, f"{top}/{program}")
    return hashlib.sha256(archive.read_bytes()).hexdigest()


def pack_release(directory: Path, tree: Path, release: str, arch: str) -> dict[str, Any]:
    """Write the archives of one Debian release; return component -> version and checksums."""
    versions = unpack(tree, [*PACKAGES.values(), *FURTHER_PACKAGES[release]], release)
    catalogue = {}
    for component, package in PACKAGES.items():
        version = versions[package]
        archive = directory / f"{component}-{version}.linux-{arch}.tar.gz"
        catalogue[component] = {
            "version": version,
            "checksums": {arch: pack(archive, tree, component)},
            "file": archive.name,
        }
    return catalogue


def main() -> None:
    """Run the command line."""
    directory = Path(sys.argv[1])
    arch = run("dpkg", "--print-architecture")
    foreign = OTHER_ARCH[arch]
    extend_apt(arch, foreign)
    for folder in ("broken", "foreign"):
        (directory / folder).mkdir(parents=True)
    with tempfile.TemporaryDirectory() as name:
        trees = Path(name)
        catalogue = {
            release: pack_release(directory, trees / release, release, arch) for release in (OLD, NEW)
        }
        with tarfile.open(directory / "alertmanager-templates.tar.gz", "x:gz") as tar:
            tar.add(trees / NEW / TEMPLATES, TEMPLATES)

        newest = catalogue[NEW]["node_exporter"]
        content = bytearray((directory / newest["file"]).read_bytes())
        content[len(content) // 2] ^= 1
        (directory / "broken" / newest["file"]).write_bytes(content)

        unpack(trees / foreign, [f"prometheus-node-exporter:{foreign}"], NEW)
        sha256 = pack(directory / "foreign" / newest["file"], trees / foreign, "node_exporter")
        catalogue["foreign"] = {"node_exporter": {**newest, "checksums": {arch: sha256}}}
    (directory / "releases.json").write_text(json.dumps(catalogue, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
