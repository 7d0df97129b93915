"""The recipe of a host image."""

import dataclasses
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from lab import image
from lab.console import LabError

RECIPE = image.Recipe("trixie", ("deb http://mirror.example/debian trixie main",), (), ())


def pem(body: str) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    "change",
    [
        {"release": "bookworm"},
        {"sources": ("deb http://other.example/debian trixie main",)},
        {"settings": ('Acquire::Check-Valid-Until "false";',)},
        {"authorities": (pem("own"),)},
    ],
)
def test_every_part_of_a_recipe_changes_the_tag(change: dict[str, Any]) -> None:
    assert dataclasses.replace(RECIPE, **change).tag != RECIPE.tag


def test_the_same_recipe_has_the_same_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    tag = RECIPE.tag
    assert dataclasses.replace(RECIPE).tag == tag
    assert tag.partition(":")[2].startswith("trixie-")
    monkeypatch.setattr(image, "PACKAGES", (*image.PACKAGES, "vim"))
    assert RECIPE.tag != tag


def test_only_authorities_that_debian_does_not_ship(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.crt"
    bundle.write_text(pem("public") + pem("company"))
    shipped = tmp_path / "shipped" / "mozilla"
    shipped.mkdir(parents=True)
    (shipped / "public.crt").write_text(pem("public"))
    assert image.extra_authorities(bundle, tmp_path / "shipped") == [pem("company")]
    assert image.extra_authorities(tmp_path / "none", tmp_path) == []


def test_settings_and_authorities_become_files() -> None:
    made = dataclasses.replace(RECIPE, settings=('Acquire::Check-Date "false";',), authorities=(pem("own"),))
    assert 'Acquire::Check-Date "false";' in made.files["etc/apt/apt.conf.d/90lab"]
    assert made.files["usr/local/share/ca-certificates/controller-1.crt"] == pem("own")


def test_overlay_holds_files_and_masks() -> None:
    packed = image.pack({"etc/environment": "LANG=C.UTF-8\n"}, image.MASKED)
    with tarfile.open(fileobj=io.BytesIO(packed)) as overlay:
        content = overlay.extractfile("etc/environment")
        assert content is not None
        assert content.read() == b"LANG=C.UTF-8\n"
        assert overlay.getmember("etc/systemd/system/getty.target").linkname == "/dev/null"


def test_unknown_release() -> None:
    with pytest.raises(LabError, match=r"'sid'.*bookworm, trixie"):
        image.recipe("sid")
