"""The user's choices and the lab's secrets."""

from pathlib import Path

import pytest

from lab.console import LabError
from lab.settings import SECRETS, Settings, ensure_secrets, read_secrets


def test_defaults(tmp_path: Path) -> None:
    assert Settings.load({}, tmp_path) == Settings("trixie", 3)


def test_a_choice_is_remembered_until_the_next(tmp_path: Path) -> None:
    Settings.load({"LAB_NODES": "5", "LAB_RELEASE": "bookworm"}, tmp_path).save(tmp_path)
    assert Settings.load({"LAB_NODES": ""}, tmp_path) == Settings("bookworm", 5)
    assert Settings.load({"LAB_NODES": "0"}, tmp_path) == Settings("bookworm", 0)


@pytest.mark.parametrize(
    "wrong", [{"LAB_RELEASE": "sid"}, {"LAB_NODES": "-1"}, {"LAB_NODES": "²"}, {"LAB_NODES": "101"}]
)
def test_wrong_choices_name_the_variable(wrong: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(LabError, match=next(iter(wrong))):
        Settings.load(wrong, tmp_path)


def test_secrets_are_generated_once_and_private(tmp_path: Path) -> None:
    state = tmp_path / ".lab"
    ensure_secrets(state)
    first = read_secrets(state)
    assert set(first) == set(SECRETS)
    assert all(len(value) > 30 for value in first.values())
    assert (state / "secrets.yml").stat().st_mode & 0o777 == 0o600
    assert state.stat().st_mode & 0o777 == 0o700
    ensure_secrets(state)
    assert read_secrets(state) == first


def test_a_secret_that_is_missing_is_added_to_the_others(tmp_path: Path) -> None:
    (tmp_path / "secrets.yml").write_text('mine: "kept"\n')
    ensure_secrets(tmp_path)
    assert read_secrets(tmp_path).items() > {"mine": "kept"}.items()
    assert set(read_secrets(tmp_path)) == {"mine", *SECRETS}
