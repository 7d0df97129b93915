"""release_archive against real archives, a real HTTP server and real interruptions."""

from __future__ import annotations

import http.server
import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.fleetwatch.monitoring.plugins.module_utils import release
from ansible_collections.fleetwatch.monitoring.plugins.modules import release_archive

REPOSITORY = Path(__file__).parents[2]
PROGRAM = Path("/bin/true").read_bytes()
ARCH = release.host_arch()
OTHER_ARCH = "arm64" if ARCH == "amd64" else "amd64"
MODULE = "ansible_collections.fleetwatch.monitoring.plugins.modules.release_archive"


class FailedError(Exception):
    """The module's message."""


class Mirror(http.server.ThreadingHTTPServer):
    """Serves what is in `files`; a value that is a function answers by itself."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), MirrorHandler)
        self.files: dict[str, bytes | Callable[[http.server.BaseHTTPRequestHandler], None]] = {}
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class MirrorHandler(http.server.BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        content = self.server.files.get(self.path)
        if callable(content):
            content(self)
        elif content is None:
            self.send_error(404)
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
        pass


def tar(
    files: dict[str, bytes], *, mode: str = "w:gz", members: list[tarfile.TarInfo] | None = None
) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload] # mode is a variable
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid, info.gid = len(content), 0o775, 1001, 1001
            info.mode = 0o664 if name.endswith(".txt") else 0o6775
            archive.addfile(info, io.BytesIO(content))
        for info in members or []:
            archive.addfile(info)
    return buffer.getvalue()


def upstream(version: str, program: bytes = PROGRAM, **more: bytes) -> bytes:
    """Return an archive in the layout that Prometheus' releases have."""
    top = f"demo-{version}.linux-{ARCH}"
    return tar({f"{top}/demo": program, f"{top}/version.txt": version.encode()} | more)


def built_for(machine: int) -> bytes:
    return PROGRAM[:18] + machine.to_bytes(2, sys.byteorder) + PROGRAM[20:]


class Site:
    """A host's directories and a mirror."""

    def __init__(self, directory: Path, mirror: Mirror) -> None:
        self.root, self.bin, self.mirror = directory / "opt", directory / "bin", mirror
        self.base = self.root / "demo"

    def publish(self, version: str, content: bytes | None = None) -> dict[str, Any]:
        """Put an archive on the mirror; return the arguments that install it."""
        content = content or upstream(version)
        self.mirror.files[f"/v{version}/demo-{version}.linux-{ARCH}.tar.gz"] = content
        return self.arguments(version, content)

    def arguments(self, version: str, content: bytes, **more: Any) -> dict[str, Any]:
        arguments = {
            "name": "demo",
            "version": version,
            "url": self.mirror.url + "/v{version}/demo-{version}.linux-{arch}.tar.gz",
            "checksums": {ARCH: sha256(content).hexdigest()},
            "programs": ["demo"],
            "root": str(self.root),
            "bin_dir": str(self.bin),
        }
        return arguments | more

    def run(self, arguments: dict[str, Any], *, check: bool = False, **more: Any) -> dict[str, Any]:
        output, stdout = io.StringIO(), sys.stdout
        with patch_module_args({**arguments, **more, "_ansible_check_mode": check, "_ansible_diff": True}):
            sys.stdout = output
            try:
                release_archive.main()
            except SystemExit:
                pass
            finally:
                sys.stdout = stdout
        result: dict[str, Any] = json.loads(output.getvalue())
        if result.get("failed"):
            assert "\n" not in result["msg"]
            raise FailedError(result["msg"])
        return result

    def start(self, arguments: dict[str, Any]) -> subprocess.Popen[str]:
        """Run the module as a process of its own."""
        process = subprocess.Popen(  # noqa: S603 - this Python
            [sys.executable, "-m", MODULE],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY / "collections")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
        process.stdin.close()
        process.stdin = None  # communicate() would use it
        return process

    @property
    def entries(self) -> list[str]:
        return sorted(path.name for path in self.base.iterdir()) if self.base.is_dir() else []

    @property
    def version_in_use(self) -> str:
        return (self.base / "current" / "version.txt").read_text()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(release, "RETRY_PAUSES", (0, 0))
    mirror = Mirror()
    thread = threading.Thread(target=mirror.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Site(tmp_path, mirror)
    mirror.shutdown()
    mirror.server_close()
    thread.join()


# --- The version is present ----------------------------------------------------------------------


def test_installs_once(site: Site) -> None:
    arguments = site.publish("1.0") | {"link": True}

    result = site.run(arguments)

    assert result["changed"]
    assert result["switched"]
    assert result["previous_version"] is None
    assert result["version"] == "1.0"
    assert result["path"] == str(site.base / "1.0")
    assert (site.base / "current").readlink() == Path("1.0")
    assert (site.bin / "demo").readlink() == site.base / "current" / "demo"
    assert subprocess.run([site.bin / "demo"], check=False).returncode == 0  # noqa: S603 - true
    assert site.entries == ["1.0", "current"]
    assert site.mirror.requests == [f"/v1.0/demo-1.0.linux-{ARCH}.tar.gz"]

    site.mirror.files.clear()
    again = site.run(arguments)

    assert not again["changed"]
    assert not again["switched"]
    assert again["diff"]["before"] == again["diff"]["after"] == result["diff"]["after"]
    assert len(site.mirror.requests) == 1


def test_owner_and_modes_are_sane_whatever_the_archive_and_the_umask_say(site: Site) -> None:
    before = os.umask(0o077)
    try:
        site.run(site.publish("1.0"))
    finally:
        os.umask(before)

    for path in (site.root, site.base, site.base / "1.0", site.base / "1.0" / "demo"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o755, path
        assert (path.stat().st_uid, path.stat().st_gid) == (os.getuid(), os.getgid())
    assert stat.S_IMODE((site.base / "1.0" / "version.txt").stat().st_mode) == 0o644


def test_files_are_as_new_as_their_installation(site: Site) -> None:
    """Else Python would take bytecode of an older bundle, with the same times and sizes, for current."""
    site.run(site.publish("1.0"))

    assert time.time() - (site.base / "1.0" / "version.txt").stat().st_mtime < 60


def test_check_mode_predicts_and_touches_nothing(site: Site) -> None:
    arguments = site.publish("1.0") | {"link": True}

    predicted = site.run(arguments, check=True)

    assert not site.root.exists()
    assert not site.bin.exists()
    assert site.mirror.requests == []
    real = site.run(arguments)
    del predicted["invocation"], real["invocation"]
    # Where the path exists, Ansible adds its owner and mode to the result.
    assert predicted == {key: value for key, value in real.items() if key in predicted}
    assert predicted["changed"]
    assert predicted["diff"]["before"] == ""
    assert "version: 1.0\n" in predicted["diff"]["after"]


def test_upgrade_and_rollback(site: Site) -> None:
    old, new = site.publish("1.0"), site.publish("1.1")
    site.run(old)

    predicted = site.run(new, check=True)
    assert site.version_in_use == "1.0"
    result = site.run(new)

    assert site.version_in_use == "1.1"
    assert result["previous_version"] == "1.0"
    assert result["diff"] == predicted["diff"]
    assert "version: 1.0\n" in result["diff"]["before"]
    assert "version: 1.1\n" in result["diff"]["after"]

    site.mirror.files.clear()
    back = site.run(old)

    assert back["changed"]
    assert back["switched"]
    assert back["previous_version"] == "1.1"
    assert site.version_in_use == "1.0"
    assert len(site.mirror.requests) == 2


def test_keeps_the_versions_used_last(site: Site) -> None:
    versions = {version: site.publish(version) for version in ("1", "2", "3", "4")}
    for version in ("1", "2", "3"):
        site.run(versions[version])
    an_hour_ahead = time.time() + 3600  # and then the clock was set back
    os.utime(site.base / "3" / release.MANIFEST, (an_hour_ahead, an_hour_ahead))
    site.run(versions["1"])

    assert site.run(versions["4"])["removed"] == ["2"]
    assert site.entries == ["1", "3", "4", "current"]

    predicted = site.run(versions["4"], keep=0, check=True)
    assert predicted["removed"] == ["1", "3"]
    assert predicted["changed"]
    assert not predicted["switched"]
    assert site.entries == ["1", "3", "4", "current"]
    site.run(versions["4"], keep=0)
    assert site.entries == ["4", "current"]
    assert site.version_in_use == "4"


def test_never_removes_what_it_did_not_make(site: Site) -> None:
    (site.base / "handmade").mkdir(parents=True)
    (site.base / "handmade" / "data").write_text("mine")

    site.run(site.publish("1.0"), keep=0)
    assert "handmade" in site.entries
    with pytest.raises(FailedError, match="was not made by this module"):
        site.run(site.publish("handmade"))
    site.run({"name": "demo", "state": "absent", "root": str(site.root), "bin_dir": str(site.bin)})
    assert site.entries == ["handmade"]


def test_another_checksum_replaces_the_version(site: Site) -> None:
    site.run(site.publish("1.0"))
    changed = upstream("1.0", **{f"demo-1.0.linux-{ARCH}/more.txt": b"more"})

    result = site.run(site.publish("1.0", changed))

    assert result["switched"]
    assert result["diff"]["before"] != result["diff"]["after"]
    assert (site.base / "current" / "more.txt").read_text() == "more"
    assert site.entries == ["1.0", "current"]


def test_replaces_without_the_exchange_of_names(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    class OldLibrary:
        def __init__(self, name: None) -> None:
            pass

    monkeypatch.setattr("ctypes.CDLL", OldLibrary)
    site.run(site.publish("1.0"))
    site.run(site.publish("1.0", upstream("1.0", PROGRAM + b"\0")))

    assert (site.base / "current" / "demo").read_bytes() == PROGRAM + b"\0"
    assert site.entries == ["1.0", "current"]


def test_repairs_a_version_that_lost_a_program(site: Site) -> None:
    arguments = site.publish("1.0")
    site.run(arguments)
    (site.base / "1.0" / "demo").unlink()

    assert site.run(arguments)["switched"]
    assert (site.base / "1.0" / "demo").is_file()


def test_absent(site: Site) -> None:
    (site.bin).mkdir()
    (site.bin / "other").symlink_to("/bin/true")
    for version in ("1.0", "1.1"):
        site.run(site.publish(version), link=True)
    absent = {"name": "demo", "state": "absent", "root": str(site.root), "bin_dir": str(site.bin)}

    predicted = site.run(absent, check=True)
    assert site.version_in_use == "1.1"
    result = site.run(absent)

    assert result["changed"]
    assert result["diff"] == predicted["diff"]
    assert not site.base.exists()
    assert [path.name for path in site.bin.iterdir()] == ["other"]
    assert not site.run(absent)["changed"]


# --- Where the archive comes from ----------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_local_file_is_verified_too(site: Site, tmp_path: Path, prefix: str) -> None:
    content = upstream("1.0")
    path = tmp_path / "demo of 1.0.tar.gz"
    path.write_bytes(content)
    url = prefix + str(path).replace(" ", "%20" if prefix else " ")

    with pytest.raises(FailedError, match="Checksum mismatch"):
        site.run(site.arguments("1.0", b"another", url=url))
    site.run(site.arguments("1.0", content, url=url))

    assert site.version_in_use == "1.0"
    with pytest.raises(FailedError, match="cannot read the archive /nowhere: No such file"):
        site.run(site.arguments("1.1", content, url="/nowhere"))


def test_a_proxy_comes_from_the_environment(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://releases.example.com/demo.tar.gz"
    site.mirror.files[url] = upstream("1.0")
    monkeypatch.setenv("http_proxy", site.mirror.url)
    monkeypatch.setenv("no_proxy", "")

    site.run(site.arguments("1.0", upstream("1.0"), url=url))

    assert site.mirror.requests == [url]


def test_not_found_is_said_at_once(site: Site) -> None:
    with pytest.raises(FailedError, match=r"Cannot fetch http://127.*/v9/demo-9.*: 404 Not Found. Check url"):
        site.run(site.arguments("9", b""))
    assert len(site.mirror.requests) == 1
    assert site.entries == []


def test_faults_that_pass_are_tried_again(site: Site) -> None:
    arguments = site.publish("1.0")
    path, content = next(iter(site.mirror.files.items()))
    assert isinstance(content, bytes)

    def unavailable(request: http.server.BaseHTTPRequestHandler) -> None:
        site.mirror.files[path] = cut
        request.send_error(503)

    def cut(request: http.server.BaseHTTPRequestHandler) -> None:
        site.mirror.files[path] = content
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[:1000])

    site.mirror.files[path] = unavailable
    site.run(arguments)

    assert len(site.mirror.requests) == 3
    assert site.version_in_use == "1.0"


def test_a_dead_server_is_named_with_a_cure(site: Site) -> None:
    arguments = site.arguments("1.0", b"", url="http://user:hunter2@127.0.0.1:9/demo")
    with pytest.raises(
        FailedError, match=r"Cannot fetch http://127.0.0.1:9/demo: .*refused.*a mirror as url"
    ):
        site.run(arguments)


def test_a_password_in_the_address_is_not_shown(site: Site) -> None:
    arguments = site.publish("1.0")
    arguments["url"] = arguments["url"].replace("://", "://user:hunter2@")

    assert "hunter2" not in json.dumps(site.run(arguments))
    assert "hunter2" not in (site.base / "1.0" / ".release.json").read_text()


def test_an_archive_labelled_as_an_encoding_stays_an_archive(site: Site) -> None:
    arguments = site.publish("1.0")
    path, content = next(iter(site.mirror.files.items()))

    def labelled(request: http.server.BaseHTTPRequestHandler) -> None:
        assert isinstance(content, bytes)
        request.send_response(200)
        request.send_header("Content-Encoding", "gzip")
        request.end_headers()
        request.wfile.write(content)

    site.mirror.files[path] = labelled
    assert site.run(arguments)["changed"]


# --- Layouts -------------------------------------------------------------------------------------


def test_a_zip_of_one_program(site: Site) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo(f"demo-linux-{ARCH}")
        info.external_attr = 0o100755 << 16
        archive.writestr(info, PROGRAM)
    arguments = site.publish("1.0", buffer.getvalue())
    layout: dict[str, Any] = {"strip": False, "rename": {"demo-linux-{arch}": "demo"}}

    site.run(arguments, **layout)

    assert os.access(site.base / "current" / "demo", os.X_OK)
    assert not site.run(arguments, **layout)["changed"]
    with pytest.raises(FailedError, match=rf"rename: the archive holds no demo_{ARCH}; it holds demo-linux"):
        site.run(arguments, **layout | {"rename": {"demo_{arch}": "demo"}})


@pytest.mark.parametrize("mode", ["w:xz", "w:bz2", "w"])
def test_an_archive_without_a_top_directory(site: Site, mode: str) -> None:
    content = tar({"./demo": PROGRAM, "./lib/a/b.txt": b"b"}, mode=mode)
    arguments = site.publish("1.0", content)

    with pytest.raises(FailedError, match=r"no single top directory.*set strip: false"):
        site.run(arguments)
    site.run(arguments, strip=False)

    assert (site.base / "current" / "lib" / "a" / "b.txt").read_bytes() == b"b"


def test_links_inside_are_kept(site: Site) -> None:
    link, hard = tarfile.TarInfo("top/lib.so"), tarfile.TarInfo("top/hard.txt")
    link.type, link.linkname = tarfile.SYMTYPE, "deep/lib.txt"
    hard.type, hard.linkname = tarfile.LNKTYPE, "top/deep/lib.txt"
    content = tar({"top/demo": PROGRAM, "top/deep/lib.txt": b"lib"}, members=[link, hard])

    site.run(site.publish("1.0", content))

    assert (site.base / "1.0" / "lib.so").readlink() == Path("deep/lib.txt")
    assert (site.base / "1.0" / "hard.txt").read_bytes() == b"lib"


# --- What is refused, before anything is switched ------------------------------------------------


def other_machine() -> bytes:
    return built_for(next(machine for machine, archs in release.ELF_ARCH.items() if OTHER_ARCH in archs))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            upstream("2.0", other_machine()),
            f"Wrong architecture: 'demo' .* for {OTHER_ARCH}, .*host is {ARCH}",
        ),
        (upstream("2.0", b"\xcf\xfa\xed\xfe" + PROGRAM[4:]), "'demo' in the archive is no Linux program"),
        (tar({"top/demo.txt": PROGRAM}), "the archive holds no 'demo'; it holds demo.txt"),
        (b"<html>Sign in</html>", "it is neither a tar nor a zip archive"),
        (upstream("2.0", os.urandom(9000))[:-3000], "it is damaged"),
        (tar({}), "the archive: it is empty|neither a tar"),
    ],
    ids=["arch", "system", "missing", "html", "cut", "empty"],
)
def test_refused_archives(site: Site, content: bytes, message: str) -> None:
    site.run(site.publish("1.0"))

    with pytest.raises(FailedError, match=message):
        site.run(site.publish("2.0", content))

    assert site.entries == ["1.0", "current"]
    assert site.version_in_use == "1.0"


def test_a_program_that_is_not_executable_is_refused(site: Site) -> None:
    with pytest.raises(FailedError, match=r"'demo\.txt' in the archive is not executable"):
        site.run(site.publish("1.0", tar({"top/demo.txt": PROGRAM})), programs=["demo.txt"])


def test_a_corrupt_archive_is_refused(site: Site) -> None:
    site.run(site.publish("1.0"))
    arguments = site.publish("2.0")
    actual = sha256(b"corrupt").hexdigest()
    site.mirror.files = dict.fromkeys(site.mirror.files, b"corrupt")

    expected = arguments["checksums"][ARCH]
    with pytest.raises(FailedError, match=rf"of {site.mirror.url}/v2\S+: expected {expected}, got {actual}"):
        site.run(arguments)

    assert site.entries == ["1.0", "current"]


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "members",
    [
        [member("top/../../evil.txt")],
        [member("top/a", tarfile.SYMTYPE, "/etc/passwd")],
        [member("top/a", tarfile.SYMTYPE, "../../../../evil")],
        [member("top/a", tarfile.SYMTYPE, "nowhere")],
        [member("top/x/y/b", tarfile.SYMTYPE, "../.."), member("top/a", tarfile.SYMTYPE, "x/y/b/..")],
        [member("top/a", tarfile.SYMTYPE, "."), member("top/a/evil.txt")],
        [member("top/a", tarfile.LNKTYPE, "/etc/passwd")],
        [member("top/a", tarfile.CHRTYPE)],
        [member("top/a", tarfile.FIFOTYPE)],
        [member("top/demo")],
    ],
    ids=[
        "dotdot",
        "link",
        "relative",
        "dangling",
        "chain",
        "through",
        "hard",
        "device",
        "fifo",
        "twice",
    ],
)
def test_nothing_leaves_the_tree(site: Site, tmp_path: Path, members: list[tarfile.TarInfo]) -> None:
    content = tar({"top/demo": PROGRAM}, members=members)

    with pytest.raises(FailedError, match="Cannot unpack the archive: it"):
        site.run(site.publish("1.0", content))

    assert site.entries == []
    assert not list(tmp_path.rglob("evil*"))


def test_no_absolute_paths(site: Site, tmp_path: Path) -> None:
    content = tar({"demo": PROGRAM}, members=[member(str(tmp_path / "evil.txt"))])

    with pytest.raises(FailedError, match=r"it holds '/.*evil\.txt', which is outside"):
        site.run(site.publish("1.0", content), strip=False)

    assert not (tmp_path / "evil.txt").exists()


def test_nothing_leaves_the_tree_of_a_zip(site: Site, tmp_path: Path) -> None:
    link = zipfile.ZipInfo("top/a")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    for name, body in ((zipfile.ZipInfo("../evil.txt"), b""), (link, b"/etc/passwd")):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(name, body)
        with pytest.raises(FailedError, match="Cannot unpack the archive: it holds"):
            site.run(site.publish("1.0", buffer.getvalue()))
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"checksums": {OTHER_ARCH: "0" * 64}},
            rf"checksums has no entry for {ARCH}.*add checksums\['{ARCH}'\]",
        ),
        ({"checksums": {ARCH: "12"}}, rf"checksums\['{ARCH}'\] is '12', which is not a SHA-256"),
        ({"checksums": {ARCH: 12}}, "which is not a SHA-256"),
        ({"url": "https://example.com/{versoin}"}, r"url: the placeholder \{versoin\} is not known"),
        ({"url": "releases/demo"}, "url: 'releases/demo' must be"),
        ({"url": "s3://bucket/demo"}, "url: 's3://bucket/demo' must be"),
        ({"version": "../1.0"}, r"version: '../1.0' cannot be a directory's name"),
        ({"version": "current"}, "version: 'current' cannot be"),
        ({"name": "a/b"}, "name: 'a/b' cannot be"),
        ({"programs": ["/bin/sh"]}, "programs: '/bin/sh' must be a relative path"),
        ({"rename": {"a": "../b"}}, "rename: '../b' must be a relative path"),
        ({"keep": -1}, "keep: must be 0 or more"),
    ],
)
def test_settings_that_cannot_be(site: Site, change: dict[str, Any], message: str) -> None:
    for check in (True, False):
        with pytest.raises(FailedError, match=message):
            site.run(site.publish("1.0") | change, check=check)
    assert not site.root.exists()


def test_unknown_architecture(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "vax")
    with pytest.raises(FailedError, match="architecture, vax, is not known; known are"):
        site.run(site.publish("1.0"))


def test_foreign_files_are_not_overwritten(site: Site) -> None:
    site.bin.mkdir()
    (site.bin / "demo").write_text("mine")
    with pytest.raises(FailedError, match=r"bin/demo is there and is not a symbolic link.*link: false"):
        site.run(site.publish("1.0"), link=True)
    assert site.entries == []
    (site.base / "current").mkdir(parents=True)
    with pytest.raises(FailedError, match="current is not a symbolic link; move it away"):
        site.run(site.publish("1.0"))


def test_a_full_disk(site: Site) -> None:
    site.root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(site.root)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:  # noqa: S603 - mount
        pytest.skip("no permission to mount a file system")
    try:
        site.run(site.publish("1.0"))
        big = upstream("2.0", **{f"demo-2.0.linux-{ARCH}/big.txt": bytes(2 << 20)})
        with pytest.raises(
            FailedError, match=r"Disk full: .*more than the 0 MiB free at .*Nothing was switched"
        ):
            site.run(site.publish("2.0", big))
        assert site.entries == ["1.0", "current"]
    finally:
        subprocess.run(["umount", str(site.root)], check=True)  # noqa: S603, S607 - our own mount


# --- Interruptions and company -------------------------------------------------------------------


@pytest.mark.slow
def test_runs_at_the_same_time_install_once(site: Site) -> None:
    arguments = site.publish("1.0")
    processes = [site.start(arguments) for _ in range(4)]
    results = [json.loads(process.communicate(timeout=30)[0]) for process in processes]

    assert sorted(result["changed"] for result in results) == [False, False, False, True]
    assert len(site.mirror.requests) == 1


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.slow
def test_killed_while_it_downloads(site: Site) -> None:
    site.run(site.publish("1.0"))
    arguments = site.publish("2.0")
    path = f"/v2.0/demo-2.0.linux-{ARCH}.tar.gz"
    content, stop = site.mirror.files[path], threading.Event()
    assert isinstance(content, bytes)

    def stall(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[:100])
        stop.wait(20)

    site.mirror.files[path] = stall
    process = site.start(arguments)
    wait_for((site.base / ".work" / "archive").exists)
    process.kill()
    process.communicate()
    stop.set()

    assert site.version_in_use == "1.0"
    site.mirror.files[path] = content
    assert site.run(arguments)["switched"]
    assert site.entries == ["1.0", "2.0", "current"]


@pytest.mark.slow
def test_killed_while_it_unpacks(site: Site) -> None:
    site.run(site.publish("1.0"))
    top = f"demo-2.0.linux-{ARCH}"
    arguments = site.publish("2.0", upstream("2.0", **{f"{top}/{n}.txt": bytes(20 << 20) for n in range(10)}))

    process = site.start(arguments)
    wait_for((site.base / ".work" / "tree" / "3.txt").exists)
    process.kill()
    process.communicate()

    assert site.entries == [".work", "1.0", "current"]
    assert site.version_in_use == "1.0"
    assert site.run(arguments)["switched"]
    assert site.version_in_use == "2.0"
    assert site.entries == ["1.0", "2.0", "current"]


def test_leftovers_go_though_nothing_else_is_to_do(site: Site) -> None:
    arguments = site.publish("1.0")
    site.run(arguments)
    (site.base / ".work" / "tree").mkdir(parents=True)
    (site.base / ".current.new").symlink_to("2.0")

    assert not site.run(arguments)["changed"]
    assert site.entries == ["1.0", "current"]


STEPS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.utime", "ctypes.dlsym"}


def killed_at(step: int, action: Callable[[], object]) -> bool:
    """Run `action` in a process that dies before its nth step on the file system; tell whether it died."""
    child = os.fork()
    if child == 0:
        left = step

        def count(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if event in STEPS:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            action()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.slow
@pytest.mark.parametrize("case", ["first", "upgrade", "replace", "rollback"])
def test_killed_at_every_step(tmp_path: Path, case: str) -> None:
    old, new = upstream("1.0"), upstream("2.0", PROGRAM + b"\0")
    files = {version: tmp_path / version for version in ("1.0", "2.0")}
    files["1.0"].write_bytes(old)
    files["2.0"].write_bytes(new)

    def ensure(store: release.Store, file: str, version: str, keep: int = 0) -> None:
        content = files[file].read_bytes()
        wanted = release.Wanted(
            version=version,
            arch=ARCH,
            sha256=sha256(content).hexdigest(),
            url=str(files[file]),
            strip=True,
            rename={},
            programs=("demo",),
            link=True,
            keep=keep,
        )
        with store.lock():
            store.apply(store.plan(wanted), wanted, wanted.url, 1)

    first = {"first": [], "upgrade": [("1.0", "1.0")], "replace": [("1.0", "1.0")]}
    second = {"first": ("2.0", "2.0"), "upgrade": ("2.0", "2.0"), "replace": ("2.0", "1.0")}
    step = 0
    died = True
    while died:
        step += 1
        root = tmp_path / str(step)
        store = release.Store(root / "opt", "demo", root / "bin")
        for file, version in first.get(case, [("1.0", "1.0"), ("2.0", "2.0")]):
            ensure(store, file, version, keep=1)
        file, version = second.get(case, ("1.0", "1.0"))

        died = killed_at(step, lambda: ensure(store, file, version))  # noqa: B023 - called at once

        # Whatever is visible is whole, and what was in use is in use, or its successor is.
        for found in store.versions():
            assert (store.base / found / "demo").read_bytes() in (PROGRAM, PROGRAM + b"\0"), step
            assert (store.base / found / "version.txt").read_text() in ("1.0", "2.0"), step
        if case != "first" or not died:
            assert (store.base / "current" / "version.txt").is_file(), step

        ensure(store, file, version)
        assert (store.base / "current" / "version.txt").read_text() == file, step
        assert (root / "bin" / "demo").resolve() == store.base / version / "demo", step
        assert sorted(path.name for path in store.base.iterdir()) == [version, "current"], step
        assert [path.name for path in (root / "bin").iterdir()] == ["demo"], step
        shutil.rmtree(root)
    assert step > 10


# --- As Ansible runs it --------------------------------------------------------------------------


def playbook(
    directory: Path, tasks: list[dict[str, Any]], *options: str, hosts: int = 1
) -> subprocess.CompletedProcess[str]:
    names = {f"host{n}": None for n in range(hosts)}
    (directory / "inventory.json").write_text(
        json.dumps({"all": {"hosts": names, "vars": {"ansible_connection": "local"}}})
    )
    play = {"hosts": "all", "gather_facts": False, "tasks": tasks}
    (directory / "play.json").write_text(json.dumps([play]))
    return subprocess.run(  # noqa: S603 - the ansible-playbook beside this Python
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "inventory.json", "play.json", *options],
        cwd=directory,
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "collections"),
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
            "ANSIBLE_NOCOLOR": "1",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.slow
def test_the_controller_fetches_once_for_all_hosts(site: Site, tmp_path: Path) -> None:
    arguments = site.publish("1.0") | {
        "download": "controller",
        "cache_dir": str(tmp_path / "cache"),
        "root": str(tmp_path / "{{ inventory_hostname }}"),
    }
    tasks = [{"fleetwatch.monitoring.release_archive": arguments}]

    predicted = playbook(tmp_path, tasks, "--check", hosts=3)
    assert predicted.stdout.count("changed=1") == 3, predicted.stdout
    assert site.mirror.requests == []

    first = playbook(tmp_path, tasks, "--diff", hosts=3)
    assert first.stdout.count("changed=1") == 3, first.stdout
    assert "+version: 1.0" in first.stdout
    assert len(site.mirror.requests) == 1
    for host in ("host0", "host1", "host2"):
        assert (tmp_path / host / "demo" / "current" / "demo").is_file()

    shutil.rmtree(tmp_path / "cache")
    again = playbook(tmp_path, tasks, hosts=3)
    assert again.stdout.count("changed=0") == 3, again.stdout
    assert len(site.mirror.requests) == 1
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_the_controllers_files(site: Site, tmp_path: Path) -> None:
    content = upstream("1.0")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "demo-1.0.tar.gz").write_bytes(content)
    arguments = site.arguments("1.0", content, url="demo-{version}.tar.gz", download="controller")
    wrong = arguments | {"checksums": {ARCH: "0" * 64}, "version": "1.0", "name": "other"}

    run = playbook(
        tmp_path,
        [
            {"fleetwatch.monitoring.release_archive": arguments},
            {"fleetwatch.monitoring.release_archive": wrong},
        ],
    )

    assert site.version_in_use == "1.0", run.stdout + run.stderr
    assert "changed=1" in run.stdout
    assert "failed=1" in run.stdout
    assert f"On the controller: Checksum mismatch of {tmp_path}/files/demo-1.0.tar.gz" in run.stdout
