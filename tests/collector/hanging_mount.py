"""Runs the collector beside a file system that never answers; to be process 1 of namespaces of its own.

A FUSE file system whose program reads no request is, to the kernel, what a network file system is whose
server is away: statvfs on it hangs. A line on standard input ends that, as when the server comes back to say
that it knows nothing of the mount any more.

Usage: hanging_mount.py DIRECTORY COMMAND...
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys


def main() -> int:
    """Mount, run the command, and end as it does."""
    directory, *command = sys.argv[1:]
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"never-answers", directory.encode(), b"fuse", 0, options):
        sys.exit(f"cannot mount: {os.strerror(ctypes.get_errno())}")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:  # noqa: S603 - the test's own
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        sys.stdin.readline()
        os.close(device)
        return process.wait()


if __name__ == "__main__":
    sys.exit(main())
