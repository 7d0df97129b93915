"""The image of a lab host: a small Debian with systemd and ssh, as a fresh virtual machine has it.

The recipe (packages, files, sources, trusted authorities) is hashed into the image's tag, so an
image is built once for a release and built again only when its recipe changed.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab import CACHE, apt, engine
from lab.console import Console, LabError, Watcher, output

RELEASES = ("bookworm", "trixie")
"""Debian releases that a host can have."""

DEFAULT_RELEASE = "trixie"

PACKAGES = (
    "ca-certificates",
    "curl",
    "dbus",
    "iproute2",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "sudo",
    "systemd",
    "systemd-sysv",
    "tzdata",
)

# Units that need a kernel or hardware of their own, and those that would start work at a time of
# their choosing.
MASKED = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "getty-static.service",
    "getty.target",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-binfmt.service",
    "systemd-logind.service",
    "systemd-modules-load.service",
    "systemd-sysctl.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udevd.service",
)

BUILD = Path("/var/tmp")  # noqa: S108 (files of a random name; /tmp may be small, in memory)
"""Where an image is built."""

HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"

FILES = {
    # Every host makes its own key at its first start.
    "etc/systemd/system/ssh.service.d/host-key.conf": (
        "[Service]\nExecStartPre=\n"
        f"""ExecStartPre=/bin/sh -c 'test -s {HOST_KEY} || ssh-keygen -q -t ed25519 -N "" -f {HOST_KEY}'\n"""
        "ExecStartPre=/usr/sbin/sshd -t\n"
    ),
    "etc/ssh/sshd_config.d/lab.conf": (
        f"HostKey {HOST_KEY}\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nUseDNS no\n"
    ),
    "etc/environment": "LANG=C.UTF-8\n",
    # A host that loses its power is made anew, so dpkg need not wait for the disk.
    "etc/dpkg/dpkg.cfg.d/lab": "force-unsafe-io\n",
}

# The package lists stay in the image, so that a host made soon after it need not fetch them. What
# goes is the packages, and the index made by this machine's apt, which another version cannot read.
HOOKS = (
    "tar-in {overlay} /",
    'rm -f "$1"/etc/ssh/ssh_host_* "$1"/var/cache/apt/archives/*.deb "$1"/var/cache/apt/*.bin',
    'chroot "$1" update-ca-certificates',
    'chroot "$1" apt-get check',
    'rm -f "$1"/var/cache/apt/srcpkgcache.bin',
)

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)


class Steps(Watcher):
    """mmdebstrap's words about where it is."""

    _STEP = re.compile(r"I: (running apt|downloading|installing|creating)")

    def show(self, line: str) -> str | None:
        """Return the name of a step."""
        return line[3:] if self._STEP.match(line) else None


@dataclass(frozen=True)
class Recipe:
    """Everything that makes an image what it is.

    Attributes:
        release: Debian release.
        sources: one-line apt sources.
        settings: lines of apt configuration.
        authorities: certificates (PEM) that this machine trusts and a plain Debian does not.

    """

    release: str
    sources: tuple[str, ...]
    settings: tuple[str, ...]
    authorities: tuple[str, ...]

    @property
    def files(self) -> dict[str, str]:
        """Path in the image, without its first slash, and content of the files that are added."""
        trusted = {
            f"usr/local/share/ca-certificates/controller-{number}.crt": certificate
            for number, certificate in enumerate(self.authorities, 1)
        }
        settings = ('Acquire::Languages "none";', *self.settings)
        return {**FILES, **trusted, "etc/apt/apt.conf.d/90lab": "\n".join(settings) + "\n"}

    @property
    def tag(self) -> str:
        """Name of the image: changes when anything in the recipe does."""
        parts = [self.release, self.sources, PACKAGES, MASKED, self.files, HOOKS]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
        return f"localhost/fleetwatch-{engine.checkout_id()}:{self.release}-{digest}"


def recipe(release: str) -> Recipe:
    """Return the recipe of a release on this machine.

    Raises:
        LabError: no such release, or this machine's apt sources name no Debian archive.

    """
    if release not in RELEASES:
        raise LabError(f"there is no host image of {release!r}: choose one of {', '.join(RELEASES)}")
    return Recipe(
        release=release,
        sources=tuple(apt.archive().sources(release)),
        settings=tuple(apt.inherited_settings()),
        authorities=tuple(extra_authorities()),
    )


def extra_authorities(
    bundle: Path = Path("/etc/ssl/certs/ca-certificates.crt"),
    distributed: Path = Path("/usr/share/ca-certificates"),
) -> list[str]:
    """Return the certificates that this machine trusts beyond those its distribution ships."""
    if not bundle.exists():
        return []
    known = {
        certificate.strip()
        for path in distributed.rglob("*.crt")
        for certificate in _CERTIFICATE.findall(path.read_text(encoding="utf-8"))
    }
    trusted = _CERTIFICATE.findall(bundle.read_text(encoding="utf-8"))
    return sorted({certificate.strip() + "\n" for certificate in trusted if certificate.strip() not in known})


def is_built(release: str) -> bool:
    """Tell whether the image of a release is there, made by today's recipe."""
    return _exists(recipe(release).tag)


def _exists(tag: str) -> bool:
    return tag in {name for image in _images() for name in image.get("Names", [])}


def ensure(release: str, console: Console) -> str:
    """Make the image of a release present and return its name.

    Two processes that want the same image wait for one another. An image of an earlier recipe goes,
    unless a host still runs on it.

    Raises:
        LabError: the image cannot be built.

    """
    made = recipe(release)
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"image-{release}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _exists(made.tag):
            with console.phase(f"Host image: Debian {release}"):
                _build(made, console)
            remove(f":{release}-", keep=made.tag)
    return made.tag


def remove(part: str = ":", *, keep: str = "") -> list[str]:
    """Remove this checkout's images whose name contains ``part``.

    Returns:
        The names of those that stayed because a host still runs on them.

    """
    stayed = []
    for image in _images():
        for name in image.get("Names", []):
            if part in name and name != keep:
                try:
                    output(engine.podman("image", "rm", name))
                except LabError:
                    stayed.append(name)
    return stayed


def _images() -> list[dict[str, list[str]]]:
    found: list[dict[str, list[str]]] | None = engine.podman_json(
        "image", "ls", "--filter", f"reference=localhost/fleetwatch-{engine.checkout_id()}"
    )
    return found or []


def _build(made: Recipe, console: Console) -> None:
    with tempfile.TemporaryDirectory(dir=BUILD) as directory:
        # apt, which drops its rights, reads the hook's files through here.
        Path(directory).chmod(0o755)
        overlay = Path(directory) / "overlay.tar"
        overlay.write_bytes(pack(made.files, MASKED))
        root = Path(directory) / "root.tar"
        console.run(
            engine.as_root(
                [
                    "mmdebstrap",
                    "--mode=root",
                    "--variant=minbase",
                    f"--include={','.join(PACKAGES)}",
                    *(f"--aptopt={setting}" for setting in made.settings),
                    "--skip=cleanup/apt",
                    *(f"--customize-hook={hook.format(overlay=overlay)}" for hook in HOOKS),
                    made.release,
                    root,
                    *made.sources,
                ],
                TMPDIR=directory,
            ),
            log="image",
            watcher=Steps(),
        )
        command = ["import", "--change", 'CMD ["/sbin/init"]', "--change", "STOPSIGNAL SIGRTMIN+3"]
        labels = ["--change", f"LABEL {engine.OWNER}={engine.checkout_id()}"]
        console.run(engine.podman(*command, *labels, root, made.tag), log="image")


def pack(files: Mapping[str, str], masked: Iterable[str]) -> bytes:
    """Return a tar archive with the files and the masks of an image.

    Args:
        files: content by path, without its first slash.
        masked: units that are not to start.

    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.mode = 0o644
            member.size = len(content.encode())
            archive.addfile(member, io.BytesIO(content.encode()))
        for unit in masked:
            member = tarfile.TarInfo(f"etc/systemd/system/{unit}")
            member.type = tarfile.SYMTYPE
            member.linkname = os.devnull
            archive.addfile(member)
    return buffer.getvalue()
