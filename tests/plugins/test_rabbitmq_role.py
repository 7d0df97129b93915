"""What the role rabbitmq checks settings with, given to the parts of a real RabbitMQ."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.plugins.conftest import ROOT

pytestmark = pytest.mark.slow

CHECK = ROOT / "roles/rabbitmq/files/check_settings.escript"
GOOD = (
    "listeners.tcp.1 = 127.0.0.1:5672\nprometheus.tcp.port = 15692\nvm_memory_high_watermark.relative = 0.4\n"
)


def check(folder: Path, settings: str) -> tuple[int, str]:
    """Return how the check of a ``rabbitmq.conf`` ended, and what it said."""
    file = folder / "rabbitmq.conf"
    file.write_text(settings)
    done = subprocess.run(  # noqa: S603 - our own program
        ["/usr/bin/escript", CHECK, file], capture_output=True, text=True, check=False, timeout=300
    )
    return done.returncode, done.stdout


def test_good_settings_pass(tmp_path: Path) -> None:
    assert check(tmp_path, GOOD) == (0, "")
    assert check(tmp_path, "listeners.tcp = none\n") == (0, ""), "for no address"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("chanel_max = 12", "unknown variable: chanel_max"),
        ("channel_max = many", '"many" cannot be converted to a(n) integer'),
        ("listeners tcp", "Syntax error"),
    ],
    ids=["name", "value", "syntax"],
)
def test_wrong_settings_are_refused_with_the_reason(tmp_path: Path, line: str, said: str) -> None:
    code, words = check(tmp_path, f"{GOOD}{line}\n")
    assert code == 1
    assert said in words
