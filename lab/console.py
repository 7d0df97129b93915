"""Progress on the terminal, and commands whose full output goes to a log file."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

HEARTBEAT = 10.0
"""Seconds after which a command that shows nothing reports that it is still at work."""

TAIL = 25
"""Lines of a failed command that are shown."""


class LabError(Exception):
    """What went wrong and how to cure it, in words for the user."""


class Watcher:
    """What the user is told of a command's output while it runs."""

    def show(self, line: str) -> str | None:  # noqa: ARG002 (for those who override it)
        """Return what to show of a line, if anything."""
        return None

    def state(self, line: str) -> str | None:
        """Return what a line tells about the state of the work, for the heartbeat, if anything."""
        return line.strip() or None


class Console:
    """Phases with elapsed times on standard error, and one log file a command.

    Args:
        logs: directory of the log files; without it nothing is logged.

    """

    def __init__(self, logs: Path | None = None) -> None:
        """Start the clock."""
        self.logs = logs
        self.started = time.monotonic()

    def say(self, text: str = "") -> None:
        """Print a line at once."""
        print(text, file=sys.stderr, flush=True)  # noqa: T201 (this is the terminal's one gate)

    @contextmanager
    def phase(self, title: str) -> Iterator[None]:
        """Announce a phase and, once it succeeded, how long it took."""
        self.say(f"==> {title}")
        began = time.monotonic()
        yield
        self.say(f"    done in {time.monotonic() - began:.1f} s")

    def note(self, text: str) -> None:
        """Print a detail of the current phase."""
        self.say(f"    {text}")

    def run(
        self,
        command: Sequence[str | Path],
        *,
        log: str,
        watcher: Watcher | None = None,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Run a command that may take long, visibly.

        Every line goes to the log. The watcher says what of it is shown; when nothing is, a
        heartbeat comes every ``HEARTBEAT`` seconds.

        Args:
            command: program and arguments.
            log: name of the log file, without its suffix.
            watcher: says what is shown.
            env: variables to set on top of the environment.
            cwd: working directory.

        Raises:
            LabError: the command failed; carries its last lines and the log's path.

        """
        began = time.monotonic()
        watcher = watcher or Watcher()
        lines: queue.Queue[str | None] = queue.Queue()
        tail: list[str] = []
        state = ""
        process = subprocess.Popen(  # noqa: S603 (fixed programs, no shell)
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )
        reader = threading.Thread(target=_pump, args=(process, lines), daemon=True)
        reader.start()
        path = self._log_path(log)
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(f"$ {' '.join(str(part) for part in command)}\n")
                quiet_since = began
                while True:
                    try:
                        line = lines.get(timeout=max(0.0, quiet_since + HEARTBEAT - time.monotonic()))
                    except queue.Empty:
                        quiet_since = time.monotonic()
                        self.note(f"... {quiet_since - began:.0f} s{': ' if state else ''}{state[:80]}")
                        continue
                    if line is None:
                        break
                    file.write(line)
                    if line.strip():
                        tail = [*tail[1 - TAIL :], line.rstrip()]
                    state = watcher.state(line) or state
                    if (text := watcher.show(line.rstrip())) is not None:
                        quiet_since = time.monotonic()
                        self.note(text)
            status = process.wait()
        except BaseException:
            with suppress(PermissionError):  # what sudo started has had the terminal's interrupt itself
                process.terminate()
            process.wait()
            raise
        if status != 0:
            where = f"\nThe whole output: {path}" if self.logs else ""
            raise LabError(
                f"{title(command)} failed (exit code {status}). Its last lines:\n\n"
                + "\n".join(f"    {line}" for line in tail)
                + f"\n{where}"
            )

    def _log_path(self, name: str) -> Path:
        if self.logs is None:
            return Path(os.devnull)
        self.logs.mkdir(parents=True, exist_ok=True)
        return self.logs / f"{name}.log"


def _pump(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stdout is not None  # noqa: S101 (stdout=PIPE; told to the type checker)
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def output(
    command: Sequence[str | Path],
    *,
    env: dict[str, str] | None = None,
    stdin: str = "",
    cwd: Path | None = None,
) -> str:
    """Return what a short command prints.

    Raises:
        LabError: the command failed; carries its own words.

    """
    try:
        done = subprocess.run(  # noqa: S603 (fixed programs, no shell)
            [str(part) for part in command],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )
    except FileNotFoundError as error:
        raise LabError(f"{command[0]} is not installed") from error
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip()
        raise LabError(f"{title(command)}: {words}")
    return done.stdout


def title(command: Sequence[str | Path]) -> str:
    """Return program and subcommand, without sudo, env, timeout or python -m in front of them."""
    words = [str(part) for part in command]
    while words[1:] and (
        words[0] in ("sudo", "-n", "env", "timeout") or "=" in words[0] or words[0].isdigit()
    ):
        words = words[1:]
    if words[1:2] == ["-m"]:
        words = words[2:]
    return " ".join([Path(words[0]).name, *(word for word in words[1:2] if word.isalpha())])
