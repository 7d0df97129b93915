"""A vendor's repository is trusted for the pinned key only, and never left behind broken."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.fleetwatch.monitoring.plugins.module_utils import openpgp
from ansible_collections.fleetwatch.monitoring.plugins.modules import signed_repository
from ansible_collections.fleetwatch.monitoring.plugins.modules.signed_repository import RepositoryError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")  # of a package that the lab needs anyway
TRIXIE = "4158 7F7D B8C7 74BC CF13  1416 762F 67A0 B2C3 9DE4"
TRIXIE_ID = TRIXIE.replace(" ", "")


class Host:
    """A host's /etc/apt in a folder."""

    def __init__(self, folder: Path) -> None:
        self.apt, self.updates, self.broken = folder / "apt", 0, False

    def run(self, *, check_mode: bool = False, **params: Any) -> dict[str, Any]:
        def command(argv: list[str], **_: Any) -> tuple[int, str, str]:
            assert argv[:2] == ["apt-get", "update"]
            assert (self.apt / "sources.list.d/vendor.sources").is_file()
            self.updates += 1
            return (100, "", "E: no such suite") if self.broken else (0, "", "")

        defaults = {
            "name": "vendor",
            "uri": "https://example.com/apt",
            "suite": "stable",
            "components": ["main"],
            "key_url": str(KEYRING),
            "fingerprints": [TRIXIE],
        }
        module: Any = SimpleNamespace(
            params=defaults | params, check_mode=check_mode, run_command=command, fail_json=None
        )
        return signed_repository.run(module, self.apt)

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.apt.rglob("*") if path.is_file())


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_only_the_pinned_key_is_kept(host: Host) -> None:
    assert len(openpgp.keys(KEYRING.read_bytes())) > 1
    assert host.run()["changed"]
    key = host.apt / "keyrings/vendor.gpg"
    assert list(openpgp.keys(key.read_bytes())) == [TRIXIE_ID]
    assert (key.stat().st_mode & 0o777, host.updates) == (0o644, 1)
    source = (host.apt / "sources.list.d/vendor.sources").read_text()
    assert f"URIs: https://example.com/apt\nSuites: stable\nComponents: main\nSigned-By: {key}\n" in source
    if shutil.which("gpg"):
        shown = subprocess.run(  # noqa: S603 - our own arguments
            ["gpg", "--show-keys", "--with-colons", key],  # noqa: S607 - that of PATH
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert shown.count("\npub:") + shown.startswith("pub:") == 1
        assert f":{TRIXIE_ID}:" in shown


def test_a_second_run_needs_no_network(host: Host) -> None:
    host.run()
    assert host.run(key_url="http://127.0.0.1:1/gone") == {"changed": False}
    assert host.updates == 1


def test_check_mode_changes_nothing(host: Host) -> None:
    assert host.run(check_mode=True, key_url="http://127.0.0.1:1/gone")["changed"]
    assert host.files == []


def test_another_key_is_refused(host: Host) -> None:
    with pytest.raises(RepositoryError, match=f"holds the key .*{TRIXIE_ID}.*Nothing was changed"):
        host.run(fingerprints=["0" * 40])
    assert host.files == []


def test_a_key_that_was_exchanged_on_the_host_is_put_right(host: Host) -> None:
    host.run()
    (host.apt / "keyrings/vendor.gpg").write_bytes(KEYRING.read_bytes())
    assert host.run()["changed"]
    assert list(openpgp.keys((host.apt / "keyrings/vendor.gpg").read_bytes())) == [TRIXIE_ID]


def test_a_repository_that_cannot_be_read_does_not_stay(host: Host) -> None:
    host.broken = True
    with pytest.raises(RepositoryError, match=r"removed again\. E: no such suite"):
        host.run()
    assert host.files == []


def test_a_change_that_cannot_be_read_leaves_the_old_source(host: Host) -> None:
    host.run()
    host.broken = True
    with pytest.raises(RepositoryError):
        host.run(suite="wrong")
    assert "Suites: stable\n" in (host.apt / "sources.list.d/vendor.sources").read_text()


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"fingerprints": ["B53A"]}, "'B53A' is not one"),
        ({"fingerprints": []}, "give at least one"),
        ({"key_url": "/nowhere"}, "Cannot fetch the key /nowhere.*release archive"),
        ({"key_url": "/etc/passwd"}, "/etc/passwd: it is not an OpenPGP key file"),
        ({"name": "../x"}, "name: use small letters"),
        ({"suite": "a\nTrusted: yes"}, "in one line"),
    ],
)
def test_mistakes(host: Host, params: dict[str, Any], words: str) -> None:
    with pytest.raises(RepositoryError, match=words):
        host.run(**params)
    assert host.files == []


def test_armour_of_one_or_more_blocks() -> None:
    parts = list(openpgp.keys(KEYRING.read_bytes()).values())

    def armoured(content: bytes) -> bytes:
        text = base64.encodebytes(content).decode()
        begin, end = "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----"
        return f"{begin}\nVersion: x\n\n{text}=abcd\n{end}\n".encode()

    assert openpgp.keys(armoured(parts[0]) + armoured(parts[1])) == openpgp.keys(parts[0] + parts[1])
    with pytest.raises(openpgp.KeyFileError, match="in the middle of a packet"):
        openpgp.keys(parts[0][:100])
    with pytest.raises(openpgp.KeyFileError, match="armour is damaged"):
        openpgp.keys(armoured(parts[0]).replace(b"m", b"!", 50))
