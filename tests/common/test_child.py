"""Work that a child does: its result comes back, and its end is that of the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.common.services import SOURCE

PROGRAM = """
import sys
from fleetwatch.common.child import in_child

def work():
    {work}

print(in_child(work), "decimal" in sys.modules)
"""


def run(work: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - this Python
        [sys.executable, "-c", PROGRAM.replace("{work}", work)],
        env={"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_result_comes_back_and_what_was_imported_does_not() -> None:
    done = run("import decimal; return {'a': [1, 'x' * 200000]}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{{'a': [1, '{200000 * 'x'}']}} False\n"


@pytest.mark.parametrize("code", [0, 2])
def test_the_process_ends_as_the_child_does(code: int) -> None:
    done = run(f"print('once', file=sys.stderr); sys.exit({code})")
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "once\n")


def test_a_mistake_in_the_child_is_told() -> None:
    done = run("return 1 / 0")
    assert done.returncode == 1
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")
    assert done.stdout == ""


def test_a_child_that_is_killed_is_a_failure() -> None:
    done = run("import os; os.kill(os.getpid(), 9)")
    assert done.returncode not in {0, None}
    assert done.stdout == ""
