# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""Release archives: fetch and verify, unpack safely, switch atomically, keep the last versions.

The module ``release_archive`` uses all of it on the target; its action plugin uses :func:`fetch` and
:func:`cached` on the controller. Every failure a user can cause is a :class:`ReleaseError` of one line.

Layout below ``<root>/<name>``::

    3.5.0/                one directory per version, complete or absent
    3.5.0/.release.json   what it was made from; its mtime is when the version was last switched to
    current -> 3.5.0
    .work/                unfinished things only; any run may delete it
"""

import contextlib
import ctypes
import errno
import fcntl
import functools
import hashlib
import http.client
import json
import lzma
import os
import platform
import re
import shutil
import stat
import tarfile
import time
import urllib.error
import urllib.parse
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from ansible.module_utils import urls

# uname's machine -> the name that Go programs, and so their release archives, use for it.
GO_ARCH = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "armv7",
    "armv6l": "armv6",
    "i386": "386",
    "i686": "386",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
    "loongarch64": "loong64",
}
# e_machine of the ELF header -> architectures it is right for.
ELF_ARCH = {
    62: ("amd64",),
    183: ("arm64",),
    40: ("armv7", "armv6"),
    3: ("386",),
    21: ("ppc64le",),
    22: ("s390x",),
    243: ("riscv64",),
    258: ("loong64",),
}
MANIFEST = ".release.json"
WORK = ".work"
CURRENT = "current"
ELF_HEAD = 20  # bytes, up to e_machine
ELF_BIG_ENDIAN = 2
LISTED = 20  # names that a message lists at most
CHUNK = 1 << 20  # bytes
RETRY_PAUSES = (1, 3)  # seconds; a download is tried once more after each
SERVER_FAULTS = (429, 500, 502, 503, 504)
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+~-]*")
NETWORK_ERRORS = (
    urllib.error.URLError,
    urls.ConnectionError,
    http.client.HTTPException,
    TimeoutError,
    ConnectionError,
)
DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    KeyError,  # a hard link to what is not in the archive
    NotImplementedError,  # a zip compression that Python does not know
)


class ReleaseError(Exception):
    """What went wrong and the cure, in one line for the user."""


class BadArchiveError(Exception):
    """What is wrong with an archive, as the end of a sentence."""


@dataclass(frozen=True)
class Wanted:
    """The state asked for: one version for one architecture."""

    version: str
    arch: str
    sha256: str
    url: str  # http(s)://, file:// or an absolute path, without placeholders
    strip: bool  # remove the archive's single top directory
    rename: Mapping[str, str]  # path in the archive (after strip) -> path below the version's directory
    programs: tuple[str, ...]  # paths below the version's directory
    link: bool  # link the programs into the directory of programs
    keep: int  # older versions that stay

    @property
    def layout(self) -> dict[str, object]:
        """Everything that decides what the version's directory holds."""
        return {"sha256": self.sha256, "strip": self.strip, "rename": dict(self.rename)}


@dataclass(frozen=True)
class Plan:
    """What is to be done; nothing of it needs the archive to be known."""

    previous: str | None
    fetch: bool
    switch: bool
    links: Mapping[Path, Path | None]  # link to a program -> its target, None: to be removed
    remove: tuple[str, ...]
    before: str  # both states as text, for the diff
    after: str

    @property
    def changed(self) -> bool:
        """Whether the plan changes the host."""
        return bool(self.fetch or self.switch or self.links or self.remove)


# --- What is asked for -----------------------------------------------------------------------


def host_arch() -> str:
    """Return Go's name of this machine's architecture."""
    machine = platform.machine()
    try:
        return GO_ARCH[machine]
    except KeyError:
        raise ReleaseError(
            f"This host's architecture, {machine}, is not known; known are {', '.join(sorted(GO_ARCH))}."
        ) from None


def checked_name(setting: str, value: str) -> str:
    """Return `value` if it can be the name of a directory; `setting` is what the user calls it."""
    if not NAME.fullmatch(value) or value == CURRENT:
        raise ReleaseError(
            f"{setting}: '{value}' cannot be a directory's name; "
            f"use letters, digits and . _ + ~ - only, and not '{CURRENT}'."
        )
    return value


def expanded(setting: str, text: str, version: str, arch: str) -> str:
    """Fill in ``{version}`` and ``{arch}``; any other placeholder is a mistake."""
    text = text.replace("{version}", version).replace("{arch}", arch)
    if unknown := re.search(r"\{\w*\}", text):
        raise ReleaseError(
            f"{setting}: the placeholder {unknown[0]} is not known; known are {{version}} and {{arch}}."
        )
    return text


def checksum_for(checksums: Mapping[str, str], arch: str, url: str) -> str:
    """Return the SHA-256 that belongs to `arch`, in lower case."""
    if arch not in checksums:
        raise ReleaseError(
            f"checksums has no entry for {arch}, this host's architecture; "
            f"add checksums['{arch}'] with the SHA-256 of {redacted(url)}."
        )
    checksum = str(checksums[arch]).strip().lower().removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", checksum):
        raise ReleaseError(
            f"checksums['{arch}'] is '{checksums[arch]}', which is not a SHA-256; "
            "it must be the 64 hexadecimal digits that sha256sum prints."
        )
    return checksum


def inner_path(setting: str, path: str) -> str:
    """Return `path` if it stays below the directory it is relative to."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise ReleaseError(f"{setting}: '{path}' must be a relative path without '..'.")
    return "/".join(parts)


# --- Fetching --------------------------------------------------------------------------------


def redacted(url: str) -> str:
    """Return `url` without the user name and password it may hold."""
    return re.sub(r"(?<=://)[^/@]*@", "", url)


def local_path(url: str) -> Path | None:
    """Return the path that `url` names on this machine, or None if it is fetched over HTTP."""
    scheme = urllib.parse.urlsplit(url).scheme
    if scheme in ("http", "https"):
        return None
    path = Path(urllib.parse.unquote(url.removeprefix("file://")) if scheme == "file" else url)
    if scheme not in ("", "file") or not path.is_absolute():
        raise ReleaseError(
            f"url: '{redacted(url)}' must be an http:// or https:// address, file:///path or absolute path."
        )
    return path


def _copy(source: IO[bytes], target: IO[bytes]) -> tuple[str, int]:
    """Copy a stream; return the SHA-256 and the number of bytes."""
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK):
        digest.update(chunk)
        size += len(chunk)
        target.write(chunk)
    return digest.hexdigest(), size


def _download(url: str, target: IO[bytes], timeout: int) -> str:
    """Fetch `url` into `target`, trying again after faults that pass; return the SHA-256."""
    shown = redacted(url)
    for pause in (*RETRY_PAUSES, None):
        target.seek(0)
        target.truncate()
        try:
            # Without decompress=False a server that labels .tar.gz as an encoding hands over the plain tar.
            with urls.open_url(url, timeout=timeout, decompress=False, http_agent="fleetwatch") as response:
                length = response.headers.get("Content-Length")
                sha256, size = _copy(response, target)
            if length is None or size == int(length):
                return sha256
            fault = f"the connection closed after {size} of {length} bytes"
        except urllib.error.HTTPError as error:
            fault = f"{error.code} {error.reason}"
            if error.code not in SERVER_FAULTS:
                raise ReleaseError(
                    f"Cannot fetch {shown}: {fault}. Check url and version; is the mirror complete?"
                ) from error
        except NETWORK_ERRORS as error:
            fault = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
        if pause is not None:
            time.sleep(pause)
    raise ReleaseError(
        f"Cannot fetch {shown}: {fault} ({len(RETRY_PAUSES) + 1} attempts). Check that the machine that "
        "downloads reaches the address, or set a proxy in the task's environment, a mirror as url, "
        "or download: controller."
    )


def fetch(url: str, destination: Path, sha256: str, timeout: int) -> None:
    """Bring what `url` names to the new file `destination`, on disk and verified.

    When it cannot be had or its SHA-256 is another, `destination` is to be discarded.
    """
    source = local_path(url)
    with destination.open("xb") as target:
        if source is None:
            actual = _download(url, target, timeout)
        else:
            try:
                with source.open("rb") as stream:
                    actual, _ = _copy(stream, target)
            except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
                raise ReleaseError(f"url: cannot read the archive {source}: {error.strerror}.") from error
        target.flush()
        os.fsync(target.fileno())
    _compare(actual, sha256, url)


def _compare(actual: str, expected: str, url: str) -> None:
    if actual != expected:
        raise ReleaseError(
            f"Checksum mismatch of {redacted(url)}: expected {expected}, got {actual}. Either the file was "
            "altered on its way or the checksum belongs to another file; nothing was installed."
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cached(url: str, sha256: str, cache_dir: Path, timeout: int) -> Path:
    """Return a verified copy of `url` on this machine, fetched at most once however many ask at a time."""
    if source := local_path(url):
        if not source.is_file():
            raise ReleaseError(f"url: there is no file {source} on the controller.")
        _compare(_sha256(source), sha256, url)
        return source
    cache_dir.mkdir(parents=True, exist_ok=True)
    path = cache_dir / f"{sha256}-{PurePosixPath(urllib.parse.urlsplit(url).path).name}"
    with (cache_dir / f".{sha256}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.is_file() or _sha256(path) != sha256:
            part = path.with_name(f".{sha256}.part")
            try:
                part.unlink(missing_ok=True)
                fetch(url, part, sha256, timeout)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
    return path


# --- Unpacking -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Member:
    """What tar and zip members have in common."""

    name: str
    kind: str  # "file", "dir", "link" or what it is instead
    executable: bool
    target: str  # of a symbolic link
    open: Callable[[], IO[bytes] | None]


def _tar_members(archive: Path) -> Iterator[_Member]:
    with tarfile.open(archive) as tar:
        for info in tar:
            # A hard link is read as the file it names, so that it cannot reach out of the tree.
            file = info.isreg() or info.islnk()
            kind = "file" if file else "dir" if info.isdir() else "link" if info.issym() else "special file"
            reader = functools.partial(tar.extractfile, info)
            yield _Member(info.name, kind, bool(info.mode & 0o111), info.linkname, reader)


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as bundle:
        for info in bundle.infolist():
            mode = info.external_attr >> 16 or 0o755  # 0: packed where files have no mode
            kind = "dir" if info.is_dir() else "file"
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR) or info.flag_bits & 1:
                kind = "link, special or encrypted file"
            yield _Member(info.filename, kind, bool(mode & 0o111), "", functools.partial(bundle.open, info))


def _members(archive: Path) -> Iterator[_Member]:
    if tarfile.is_tarfile(archive):
        return _tar_members(archive)
    if zipfile.is_zipfile(archive):
        return _zip_members(archive)
    raise BadArchiveError("is neither a tar nor a zip archive")


def unpack(archive: Path, tree: Path, *, strip: bool, rename: Mapping[str, str]) -> None:
    """Unpack `archive` into the new directory `tree`, which nothing in it can leave.

    Owner and times are those of the run; modes are 0755 for directories and programs, else 0644. (The
    times matter: with those of the archive, Python would take an older version's bytecode for current.)
    """
    tree.mkdir()
    names = dict(rename)
    try:
        _unpack(archive, tree, strip=strip, rename=names)
    except BadArchiveError as error:
        raise ReleaseError(f"Cannot unpack the archive: it {error}.") from error
    except DAMAGED as error:
        raise ReleaseError(f"Cannot unpack the archive: it is damaged ({error}).") from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise ReleaseError(f"Cannot unpack the archive: it holds {error.filename} twice.") from error
    if names:
        raise ReleaseError(f"rename: the archive holds no {', '.join(names)}; {_contents(tree)}.")
    if not any(tree.iterdir()):
        raise ReleaseError("Cannot unpack the archive: it is empty.")


def _unpack(archive: Path, tree: Path, *, strip: bool, rename: dict[str, str]) -> None:
    """Do the work of `unpack`; take what was found out of `rename`."""
    links: dict[Path, str] = {}
    top: str | None = None
    for member in _members(archive):
        parts = list(PurePosixPath(member.name).parts)
        if member.name.startswith("/") or ".." in parts or "\0" in member.name:
            raise BadArchiveError(f"holds '{member.name}', which is outside of its own directory")
        if strip and parts:
            if (top or parts[0]) != parts[0] or (len(parts) == 1 and member.kind != "dir"):
                raise BadArchiveError(f"has no single top directory but '{member.name}'; set strip: false")
            top, *parts = parts
        if not parts:
            continue
        path = "/".join(parts)
        place = tree / rename.pop(path, path)
        place.parent.mkdir(parents=True, exist_ok=True)
        if member.kind == "dir":
            place.mkdir(exist_ok=True)
        elif member.kind == "link":
            links[place] = member.target  # made last, so that nothing is ever written through a link
        elif member.kind == "file":
            _write(member, place)
        else:
            raise BadArchiveError(f"holds '{member.name}', a {member.kind}, which is not accepted")
    for place, target in links.items():
        place.symlink_to(target)
    for place, target in links.items():
        if target.startswith("/") or not _inside(place, tree):
            raise BadArchiveError(f"holds the link '{place.relative_to(tree)}' to '{target}', outside of it")


def _write(member: _Member, place: Path) -> None:
    mode = 0o755 if member.executable else 0o644
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    source = member.open()
    if source is None:
        raise BadArchiveError(f"holds '{member.name}', which cannot be read")
    with source, os.fdopen(os.open(place, flags, mode), "wb") as target:
        shutil.copyfileobj(source, target, CHUNK)


def _inside(link: Path, tree: Path) -> bool:
    try:
        return link.resolve(strict=True).is_relative_to(tree.resolve())
    except (OSError, RuntimeError):  # dangling, or in a circle
        return False


def _contents(tree: Path) -> str:
    """Return what `tree` holds at its top, for messages."""
    names = sorted(path.name + "/" * path.is_dir() for path in tree.iterdir())
    return "it holds " + ", ".join(names[:LISTED]) + ", ..." * (len(names) > LISTED)


def check_program(path: Path, arch: str) -> None:
    """Refuse what cannot be run on a machine of the architecture `arch`."""
    if not path.stat().st_mode & 0o111:
        raise ReleaseError(f"programs: '{path.name}' in the archive is not executable.")
    with path.open("rb") as stream:
        head = stream.read(ELF_HEAD)
    if head.startswith(b"#!"):
        return
    if len(head) < ELF_HEAD or not head.startswith(b"\x7fELF"):
        raise ReleaseError(f"programs: '{path.name}' in the archive is no Linux program; check url.")
    order: Literal["big", "little"] = "big" if head[5] == ELF_BIG_ENDIAN else "little"
    built_for = ELF_ARCH.get(int.from_bytes(head[18:20], order), ("another",))
    if arch not in built_for:
        raise ReleaseError(
            f"Wrong architecture: '{path.name}' in the archive is built for {'/'.join(built_for)}, "
            f"but this host is {arch}; check url and checksums['{arch}']. Nothing was installed."
        )


# --- The versions on a host ------------------------------------------------------------------


class Store:
    """The versions of one program on this host."""

    def __init__(self, root: Path, name: str, bin_dir: Path) -> None:
        """Take the directory that holds all programs, the program's name and where links to programs go."""
        self.base = root / name
        self.work = self.base / WORK
        self.bin_dir = bin_dir

    def current(self) -> str | None:
        """Return the version in use."""
        link = self.base / CURRENT
        if not link.is_symlink():
            if link.exists():
                raise ReleaseError(f"{link} is not a symbolic link; move it away and run this again.")
            return None
        target = link.readlink()
        return target.name if target.parent in (Path(), self.base) else str(target)

    def manifest(self, version: str) -> dict[str, object] | None:
        """Return what a version was made from, or None if it is not here or not ours."""
        try:
            manifest = json.loads((self.base / version / MANIFEST).read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        return manifest if isinstance(manifest, dict) else None

    def versions(self) -> list[str]:
        """Return the versions that are here, the one in use first, then by last use."""
        if not self.base.is_dir():
            return []
        current = self.current()
        found = [
            path.name
            for path in self.base.iterdir()
            if NAME.fullmatch(path.name) and not path.is_symlink() and self.manifest(path.name)
        ]
        return sorted(found, key=lambda v: (v == current, self._last_used(v)), reverse=True)

    def _last_used(self, version: str) -> int:
        """Return when a version was last switched to, in nanoseconds since the epoch."""
        return (self.base / version / MANIFEST).stat().st_mtime_ns

    def _note_use(self, version: str) -> None:
        """Note that a version is the one used last, also where the clock was set back meanwhile."""
        latest = max([time.time_ns(), *(self._last_used(other) + 1 for other in self.versions())])
        os.utime(self.base / version / MANIFEST, ns=(latest, latest))

    def holds(self, wanted: Wanted) -> bool:
        """Tell whether the version is here, made from the very archive asked for, with its programs."""
        manifest = self.manifest(wanted.version) or {}
        directory = self.base / wanted.version
        return all(manifest.get(key) == value for key, value in wanted.layout.items()) and all(
            os.access(directory / program, os.X_OK) for program in wanted.programs
        )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other runs out, and remove what an interrupted one left."""
        self.base.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.base, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._clean()
            yield
        finally:
            self._clean()
            os.close(descriptor)

    def _clean(self) -> None:
        if self.work.exists():
            shutil.rmtree(self.work)
        _temporary(self.base / CURRENT).unlink(missing_ok=True)

    def plan(self, wanted: Wanted) -> Plan:
        """Compare the host with what is wanted, without changing anything."""
        previous, installed = self.current(), self.versions()
        others = [version for version in installed if version != wanted.version]
        links = self._links(wanted) if wanted.link else {}
        found = {link: _readlink(link) for link in links}
        return Plan(
            previous=previous,
            fetch=not self.holds(wanted),
            switch=previous != wanted.version,
            links={link: target for link, target in links.items() if found[link] != target},
            remove=tuple(others[wanted.keep :]),
            before=_text(previous, self._sum(previous), installed, found),
            after=_text(wanted.version, wanted.sha256, [wanted.version, *others[: wanted.keep]], links),
        )

    def removal_plan(self) -> Plan:
        """Plan that nothing of the program stays."""
        previous, installed = self.current(), self.versions()
        current = self.base / CURRENT
        links: dict[Path, Path | None] = {}
        if self.bin_dir.is_dir():
            links = {link: target for link in self.bin_dir.iterdir() if (target := _readlink(link))}
            links = {
                link: target for link, target in links.items() if target and target.is_relative_to(current)
            }
        return Plan(
            previous=previous,
            fetch=False,
            switch=previous is not None,
            links=dict.fromkeys(links),
            remove=tuple(installed),
            before=_text(previous, self._sum(previous), installed, links),
            after="",
        )

    def _sum(self, version: str | None) -> str:
        manifest = self.manifest(version) if version else None
        return str(manifest["sha256"]) if manifest else "unknown"

    def _links(self, wanted: Wanted) -> dict[Path, Path]:
        links = {self.bin_dir / Path(path).name: self.base / CURRENT / path for path in wanted.programs}
        for link in links:
            if link.exists() and not link.is_symlink():
                raise ReleaseError(
                    f"{link} is there and is not a symbolic link; move it away, or set link: false."
                )
        return links

    def apply(self, plan: Plan, wanted: Wanted, source: str, timeout: int) -> None:
        """Carry out `plan` under the lock; `source` is where the archive comes from.

        Each step is complete or has not happened, and the steps are in the order in which the program in
        use is whole after every one of them.
        """
        if plan.fetch:
            self._install(wanted, source, timeout)
        if plan.switch:
            self._note_use(wanted.version)
            self._point(self.base / CURRENT, Path(wanted.version))
        for link, target in plan.links.items():
            if target:
                link.parent.mkdir(parents=True, exist_ok=True)
                self._point(link, target)
        self._remove(plan.remove)

    def apply_removal(self, plan: Plan) -> None:
        """Remove links, versions and, if nothing else is in it, the program's directory."""
        for link in plan.links:
            link.unlink()
        (self.base / CURRENT).unlink(missing_ok=True)
        self._remove(plan.remove)
        self._clean()
        with contextlib.suppress(OSError):  # not empty: something that is not ours
            self.base.rmdir()

    def _install(self, wanted: Wanted, source: str, timeout: int) -> None:
        self.work.mkdir(exist_ok=True)
        archive, tree = self.work / "archive", self.work / "tree"
        fetch(source, archive, wanted.sha256, timeout)
        unpack(archive, tree, strip=wanted.strip, rename=wanted.rename)
        for program in wanted.programs:
            if not (tree / program).is_file():
                raise ReleaseError(f"programs: the archive holds no '{program}'; {_contents(tree)}.")
            check_program(tree / program, wanted.arch)
        manifest = {"version": wanted.version, "url": redacted(wanted.url), **wanted.layout}
        (tree / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        _to_disk(tree)
        place = self.base / wanted.version
        if os.path.lexists(place):
            if not self.manifest(wanted.version) and any(place.iterdir()):
                raise ReleaseError(f"{place} is there but was not made by this module; move it away.")
            _exchange(tree, place)
        else:
            tree.rename(place)
        _sync(self.base)

    def _point(self, link: Path, target: Path) -> None:
        """Make `link` point at `target` in one step, whatever it pointed at before."""
        # Beside the link, because a rename cannot cross file systems; the fixed name cleans up after itself.
        temporary = _temporary(link)
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(link)
        _sync(link.parent)

    def _remove(self, versions: tuple[str, ...]) -> None:
        for version in versions:
            self.work.mkdir(exist_ok=True)
            (self.base / version).rename(self.work / f"old-{version}")  # gone at once, deleted at leisure


def _temporary(link: Path) -> Path:
    return link.with_name(f".{link.name}.new")


def _text(version: str | None, sha256: str, installed: list[str], links: Mapping[Path, Path | None]) -> str:
    """Return a state of a host as text; `sha256` is that of the version in use."""
    lines = [f"version: {version}", f"sha256: {sha256}"] if version else []
    lines += [f"installed: {', '.join(sorted(installed))}"] if installed else []
    lines += [f"link: {link} -> {target}" for link, target in sorted(links.items()) if target]
    return "".join(f"{line}\n" for line in lines)


def _readlink(link: Path) -> Path | None:
    return link.readlink() if link.is_symlink() else None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _to_disk(tree: Path) -> None:
    """Have everything in `tree` on the disk, so that a rename of it can be the last step."""
    if syncfs := getattr(ctypes.CDLL(None), "syncfs", None):  # ten thousand files at once, as Grafana has
        descriptor = os.open(tree, os.O_RDONLY)
        try:
            if syncfs(descriptor) == 0:
                return
        finally:
            os.close(descriptor)
    for directory, _, files in os.walk(tree):
        for name in files:
            if not (path := Path(directory, name)).is_symlink():
                _sync(path)
        _sync(Path(directory))


def _exchange(one: Path, other: Path) -> None:
    """Swap two directories in one step; in two where the file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    at_cwd, rename_exchange = -100, 2
    if renameat2 is None or renameat2(at_cwd, bytes(one), at_cwd, bytes(other), rename_exchange):
        other.rename(one.with_name("replaced"))
        one.rename(other)


def explained(error: OSError, root: Path) -> str:
    """Return one line for what the operating system refused."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(root).free >> 20
        return f"Disk full: the release needs more than the {free} MiB free at {root}. Nothing was switched."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"Cannot write {error.filename}: {error.strerror}. The task must run as root (become: true)."
    return " ".join(str(error).split())
