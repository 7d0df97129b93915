"""A webhook that takes anything."""

from __future__ import annotations

import json
from collections.abc import Mapping

from fleetwatch.mailbox.messages import Received

_SUBJECTS = ("subject", "title", "summary", "text", "message")


def parse(name: str, body: bytes, headers: Mapping[str, str]) -> Received:
    """Return what was posted to the hook of this name; a JSON document is shown indented."""
    raw = body.decode(errors="replace")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document, text = None, raw
    else:
        text = json.dumps(document, indent=2, ensure_ascii=False)
    found = document if isinstance(document, dict) else {}
    subject = next((value for key in _SUBJECTS if isinstance(value := found.get(key), str) and value), name)
    return Received(
        via="webhook",
        sender=headers.get("User-Agent", ""),
        recipients=[name],
        subject=subject.split("\n", 1)[0],
        text=text,
        html="",
        headers=dict(headers),
        raw=raw,
    )
