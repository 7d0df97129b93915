"""The messages that arrived, in a small SQLite file."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any


@dataclass(frozen=True)
class Received:
    """A message as it came in."""

    via: str
    """``sendgrid``, ``smtp``, ``slack``, ``twilio`` or ``webhook``."""
    sender: str
    recipients: list[str]
    subject: str
    text: str
    html: str
    headers: dict[str, str] = field(default_factory=dict)
    custom_args: dict[str, str] = field(default_factory=dict)
    raw: str = ""
    """The body of the request, for those that come as one of any form: Slack, Twilio, webhook."""


@dataclass(frozen=True)
class Message(Received):
    """A message that is kept."""

    id: int = 0
    message_id: str = ""
    """The name the provider gives it (X-Message-Id)."""
    received_at: str = ""
    """ISO 8601, UTC."""

    def to_json(self) -> dict[str, Any]:
        """Return the message as the API shows it."""
        return asdict(self)


class Messages:
    """Keeps the newest ``limit`` messages. Safe to use from several threads."""

    def __init__(self, path: Path, limit: int) -> None:
        """Open or create the file; raises sqlite3.Error."""
        self._limit = limit
        self._lock = Lock()
        self._database = sqlite3.connect(path, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")  # a lab's mail may go with a power cut
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL)"
        )

    def add(self, received: Received, message_id: str) -> Message:
        """Keep a message, and drop the oldest ones beyond the limit."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        values = {**asdict(received), "message_id": message_id, "received_at": now}
        with self._lock, self._database:
            cursor = self._database.execute("INSERT INTO messages (body) VALUES (?)", (json.dumps(values),))
            number = cursor.lastrowid or 0
            self._database.execute("DELETE FROM messages WHERE id <= ?", (number - self._limit,))
        return Message(**values, id=number)

    def all(self, query: str = "", limit: int | None = None) -> list[Message]:
        """Return the messages, the newest first.

        query: only those with this text in the subject or the text part, in any case.
        """
        found: list[Message] = []
        with self._lock:
            rows = self._database.execute("SELECT id, body FROM messages ORDER BY id DESC").fetchall()
        wanted = query.casefold()
        for number, body in rows:
            if limit is not None and len(found) >= limit:
                break
            message = Message(**json.loads(body), id=number)
            if wanted in message.subject.casefold() or wanted in message.text.casefold():
                found.append(message)
        return found

    def get(self, number: int) -> Message | None:
        """Return one message."""
        with self._lock:
            row = self._database.execute("SELECT body FROM messages WHERE id = ?", (number,)).fetchone()
        return Message(**json.loads(row[0]), id=number) if row else None

    def clear(self) -> int:
        """Drop all messages; return how many there were."""
        with self._lock, self._database:
            return self._database.execute("DELETE FROM messages").rowcount

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()
