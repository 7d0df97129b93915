"""The recipe of a box, and how its disk begins."""

import json
import struct
from pathlib import Path

import pytest

from lab import box, image
from lab.box import Recipe
from lab.console import LabError

BASE = image.Recipe(
    "trixie", ("deb http://mirror.example/debian trixie main",), ("Acquire::x 1;",), ("PEM\n",)
)


def install(home: Path, name: str, recipe: str, version: str = "1") -> dict[str, str]:
    folder = home / "boxes" / name.replace("/", "-VAGRANTSLASH-") / version / "libvirt"
    folder.mkdir(parents=True)
    (folder / "metadata.json").write_text('{"provider": "libvirt"}')
    (folder / "info.json").write_text(json.dumps({"recipe": recipe}))
    return {"VAGRANT_HOME": str(home)}


def test_a_box_is_known_by_its_recipe(tmp_path: Path) -> None:
    environment = install(tmp_path, "fleetwatch/trixie", "old")
    install(tmp_path, "fleetwatch/trixie", "new", version="2")
    assert box.digests("fleetwatch/trixie", environment) == {"old", "new"}
    assert box.present("fleetwatch/trixie", "libvirt", environment)
    assert not box.present("fleetwatch/trixie", "virtualbox", environment)
    assert not box.present("fleetwatch/bookworm", "libvirt", environment)
    assert box.digests("fleetwatch/bookworm", environment) == set()


@pytest.mark.parametrize(
    "other",
    [
        image.Recipe("bookworm", BASE.sources, BASE.settings, BASE.authorities),
        image.Recipe("trixie", ("deb http://another.example/debian trixie main",), (), ()),
        image.Recipe("trixie", BASE.sources, ("Acquire::x 2;",), BASE.authorities),
        image.Recipe("trixie", BASE.sources, BASE.settings, ()),
    ],
)
def test_another_recipe_is_another_box(other: image.Recipe) -> None:
    assert Recipe(other).digest != Recipe(BASE).digest == Recipe(BASE).digest


@pytest.mark.parametrize("part", ["PACKAGES", "MASKED", "HOOKS", "VAGRANTFILE", "FILES"])
def test_every_part_counts(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Recipe(BASE).digest
    value = getattr(box, part)
    changed = value | {"etc/new": ""} if isinstance(value, dict) else value + value[:1]
    monkeypatch.setattr(box, part, changed)
    assert Recipe(BASE).digest != before


def test_a_box_reaches_its_mirror_as_this_machine_does() -> None:
    files = Recipe(BASE).files
    assert "Acquire::x 1;" in files["etc/apt/apt.conf.d/90lab"]
    assert "PEM\n" in files.values()
    # What is right for a container alone is not in it.
    assert not set(files) & (set(image.FILES) - set(box.FILES))
    assert "force-unsafe-io" not in "".join(files.values())


def test_disk_begins_with_loader_and_table() -> None:
    boot, core = b"B" * 512, b"C" * 5000
    record = box.boot_record(boot, core, sectors=1 << 24)
    assert record[:446] == boot[:446]
    assert record[510:512] == b"\x55\xaa"
    assert record[512:] == core
    active, kind, start, length = struct.unpack("<B3xB3xII", record[446:462])
    assert (active, kind, start, length) == (0x80, 0x83, 2048, (1 << 24) - 2048)
    assert record[462:510] == bytes(48)


def test_a_loader_that_would_overwrite_the_partition() -> None:
    with pytest.raises(LabError, match="too many"):
        box.boot_record(bytes(512), bytes(2048 * 512), sectors=1 << 24)
    box.boot_record(bytes(512), bytes(2047 * 512), sectors=1 << 24)


def test_boxes_are_for_one_kind_of_machine() -> None:
    assert box.machine_problem("x86_64") is None
    assert "LAB_BOX" in str(box.machine_problem("aarch64"))
