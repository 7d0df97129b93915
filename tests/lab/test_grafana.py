"""Whether the lab has Grafana, and where it comes from."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from lab import grafana, inventory
from lab.console import Console, LabError
from lab.settings import Settings


def pack(path: Path, top: str) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo(f"{top}/bin/grafana")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"#!/x"))
    return path


class Words(Console):
    """A console that keeps what it says."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str = "") -> None:
        self.said.append(text)


@pytest.fixture
def no_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.apt.reachable", lambda *_: False)


def members(state: Path) -> list[str]:
    found: list[str] = inventory.dynamic(Settings(), {}, state)["grafana"]["hosts"]
    return found


@pytest.mark.usefixtures("no_repository")
def test_left_out_in_one_line_that_names_the_cure(tmp_path: Path) -> None:
    console = Words()
    grafana.choose(Settings(), console, tmp_path)
    assert console.said == [grafana.LEFT_OUT]
    assert "\n" not in grafana.LEFT_OUT
    assert "make lab GRAFANA_RELEASE=" in grafana.LEFT_OUT
    assert members(tmp_path) == []


def test_from_the_repository_and_then_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Words()
    monkeypatch.setattr("lab.apt.reachable", lambda *found: found == (grafana.REPOSITORY, "stable"))
    grafana.choose(Settings(), console, tmp_path)
    monkeypatch.setattr("lab.apt.reachable", lambda *_: False)
    grafana.choose(Settings(), console, tmp_path)
    assert console.said == []
    assert members(tmp_path) == ["monitor"]
    assert grafana.variables(tmp_path) == {"grafana_install_method": "package"}


@pytest.mark.usefixtures("no_repository")
@pytest.mark.parametrize("by_url", [False, True])
def test_from_an_archive_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, by_url: bool) -> None:
    monkeypatch.setattr(grafana, "CACHE", tmp_path / "cache")
    archive = pack(tmp_path / "g.tar.gz", "grafana-v12.0.2")
    settings = Settings.load({"GRAFANA_RELEASE": archive.as_uri() if by_url else str(archive)}, tmp_path)
    console = Words()
    grafana.choose(settings, console, tmp_path)
    found = grafana.variables(tmp_path)
    assert found
    assert (found["grafana_install_method"], found["grafana_version"]) == ("release", "12.0.2")
    assert Path(found["grafana_release_url"]).read_bytes() == archive.read_bytes()
    assert all(len(digest) == 64 for digest in found["grafana_release_checksums"].values())
    assert members(tmp_path) == ["monitor"]
    archive.unlink()
    settings.save(tmp_path)
    grafana.choose(Settings.load({}, tmp_path), console, tmp_path)  # it is installed by now
    assert members(tmp_path) == ["monitor"]


@pytest.mark.usefixtures("no_repository")
def test_none_takes_it_out(tmp_path: Path) -> None:
    archive = pack(tmp_path / "g.tar.gz", "grafana-12.0.2")
    grafana.choose(Settings(grafana=str(archive)), Words(), tmp_path)
    grafana.choose(Settings(grafana="none"), Words(), tmp_path)
    assert members(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "top", "words"),
    [
        ("g.tar.gz", "prometheus-3.5.0.linux-amd64", "it holds 'prometheus-3.5.0.linux-amd64'"),
        ("", "", "there is no such file"),
    ],
)
def test_mistakes(tmp_path: Path, name: str, top: str, words: str) -> None:
    given = str(pack(tmp_path / name, top)) if name else "/nowhere.tar.gz"
    with pytest.raises(LabError, match=words):
        grafana.choose(Settings(grafana=given), Words(), tmp_path)
    assert members(tmp_path) == []


def test_what_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "g").write_text("hello")
    with pytest.raises(LabError, match="no tar archive"):
        grafana.version(tmp_path / "g")


def test_an_archive_that_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grafana, "CACHE", tmp_path)
    with pytest.raises(LabError, match=r"cannot fetch http://127\.0\.0\.1:1/g\.tar\.gz"):
        grafana.choose(Settings(grafana="http://127.0.0.1:1/g.tar.gz"), Words(), tmp_path)
    assert not (tmp_path / "grafana/g.tar.gz").exists()


def test_a_relative_path_is_remembered_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Settings.load({"GRAFANA_RELEASE": "g.tar.gz"}, tmp_path).save(tmp_path)
    assert json.loads((tmp_path / "lab.json").read_text())["grafana"] == str(tmp_path / "g.tar.gz")
