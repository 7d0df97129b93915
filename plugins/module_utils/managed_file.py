# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""A file that a module owns: how it is, how it is to be, and the way there and back."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path


class NotAFileError(Exception):
    """What is there is a link, a folder or the like, and not this module's to read or replace."""


class ManagedFile:
    """One file: how it is to be, and how it is."""

    def __init__(self, path: Path, content: str | None, gid: int, mode: int, *, secret: bool = False) -> None:
        """Read the present state of ``path``; ``content`` is ``None`` for a file to remove.

        :raises NotAFileError: there is something else.
        """
        self.path = path
        self.content = content
        self.gid = gid
        self.mode = mode
        self.secret = secret
        try:
            text, status = read(path)
            self.before: str | None = text
            self.before_owner = (status.st_uid, status.st_gid, status.st_mode & 0o7777)
        except FileNotFoundError:
            self.before = None
            self.before_owner = (0, gid, mode)

    @property
    def changed(self) -> bool:
        """Whether content, owner or mode differ."""
        if self.content is None:
            return self.before is not None
        return self.before != self.content or self.before_owner != (0, self.gid, self.mode)

    @property
    def diff(self) -> dict[str, str]:
        """The change as Ansible shows it."""
        before, after = self.before or "", self.content or ""
        if self.secret and before != after:
            before, after = ("(secret)\n" if before else ""), ("(a new secret)\n" if after else "")
        return {
            "before_header": str(self.path),
            "after_header": str(self.path),
            "before": before,
            "after": after,
        }

    def apply(self) -> None:
        """Bring the file to its new state, atomically."""
        write(self.path, self.content, 0, self.gid, self.mode)

    def restore(self) -> None:
        """Put back the state from before."""
        write(self.path, self.before, *self.before_owner)


def read(path: Path) -> tuple[str, os.stat_result]:
    """Return text and status of a file; a link is not followed, since it may lead to somebody's secret.

    :raises NotAFileError: it is no regular file.
    """
    refusal = NotAFileError(f"{path} is no regular file; move it away, then run this again")
    try:
        # Without waiting, as for the other end of a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:  # a link, a socket
            raise refusal from None
        raise
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise refusal
        return stream.read().decode("utf-8", errors="surrogateescape"), status


def write(path: Path, content: str | None, uid: int, gid: int, mode: int) -> None:
    """Replace ``path`` atomically and durably, or remove it when ``content`` is ``None``."""
    if content is None:
        path.unlink(missing_ok=True)
        return
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
            os.fchown(stream.fileno(), uid, gid)
            os.fchmod(stream.fileno(), mode)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
