"""Tries what a sandbox is to refuse, and prints how each attempt ended. Runs on a VM, as root.

The standard library only, and nothing of Fleetwatch. Whatever works is harmless or undone at once.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import socket
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)

_SYSCALLS = {"x86_64": {"init_module": 175}, "aarch64": {"init_module": 105}}[os.uname().machine]
_CLONE_NEWNET, _CLONE_NEWUSER = 0x40000000, 0x10000000
_MS_RDONLY = 1
_READ_KERNEL_LOG = 3
_ADDR_NO_RANDOMIZE, _ASK = 0x0040000, 0xFFFFFFFF


def _check(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _write_again(path: str) -> None:
    with Path(path).open("r+") as file:
        value = file.read()
        file.seek(0)
        file.write(value)


def _make_file(folder: str) -> None:
    path = Path(folder) / "fleetwatch-probe"
    path.touch()
    path.unlink()


def _make_cgroup() -> None:
    path = Path("/sys/fs/cgroup/fleetwatch-probe")
    path.mkdir()
    path.rmdir()


def _make_device() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.mknod(f"{folder}/disk", 0o600 | stat.S_IFBLK, os.makedev(254, 0))


def _make_setuid() -> None:
    with tempfile.NamedTemporaryFile() as file:
        os.chmod(file.name, 0o4700)  # noqa: PTH101 - the mode of a file, by name


def _mount() -> None:
    with tempfile.TemporaryDirectory() as folder:
        _check(libc.mount(b"none", folder.encode(), b"tmpfs", _MS_RDONLY, None))
        _check(libc.umount2(folder.encode(), 0))


def _in_child(act: Callable[[], object]) -> Callable[[], None]:
    """Do it in a process that ends, since it could not be undone."""

    def run() -> None:
        child = os.fork()
        if not child:
            code = 0
            try:
                act()
            except OSError as error:
                code = error.errno or errno.EPERM
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code:
            raise OSError(code, os.strerror(code))

    return run


def _load_module() -> None:
    image = b"this is no module"
    try:
        _check(libc.syscall(_SYSCALLS["init_module"], image, len(image), b""))
    except OSError as error:
        if error.errno != errno.ENOEXEC:  # the kernel has read it, so it was allowed to
            raise


def _read_kernel_log() -> None:
    _check(libc.klogctl(_READ_KERNEL_LOG, ctypes.create_string_buffer(64), 64))


def _write_and_execute() -> None:
    mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def _become_realtime() -> None:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


ATTEMPTS: dict[str, Callable[[], object]] = {
    "kernel tunable": lambda: _write_again("/proc/sys/kernel/panic"),
    "cgroup": _make_cgroup,
    "file in /etc": lambda: _make_file("/etc"),
    "file in /usr": lambda: _make_file("/usr/local/lib"),
    "file in /var": lambda: _make_file("/var/lib"),
    "file in /root": lambda: _make_file("/root"),
    "the disk": lambda: os.close(os.open("/dev/vda", os.O_RDONLY)),
    "device node": _make_device,
    "set-uid file": _make_setuid,
    "mount": _mount,
    "clock": lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()),
    "kernel module": _load_module,
    "kernel log": _read_kernel_log,
    "host name": _in_child(lambda: socket.sethostname(socket.gethostname())),
    "network namespace": _in_child(lambda: _check(libc.unshare(_CLONE_NEWNET))),
    "user namespace": _in_child(lambda: _check(libc.unshare(_CLONE_NEWUSER))),
    "real-time priority": _in_child(_become_realtime),
    "personality": _in_child(lambda: _check(libc.personality(_ADDR_NO_RANDOMIZE))),
    "writable and executable memory": _write_and_execute,
    "raw packets": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    # What it needs: otherwise all of the above might fail for another reason.
    "file in /tmp": lambda: _make_file("/tmp"),  # noqa: S108
    "TCP": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).close(),
}


def _attempt(act: Callable[[], object]) -> str:
    try:
        act()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "done"


if __name__ == "__main__":
    print(json.dumps({name: _attempt(act) for name, act in ATTEMPTS.items()}))  # noqa: T201 - the answer
