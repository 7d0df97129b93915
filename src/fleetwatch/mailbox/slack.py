"""Slack's incoming webhooks: payloads checked roughly as Slack does, errors in its words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from fleetwatch.mailbox.messages import Received

_MAX_BLOCKS = 50
_MAX_HEADER = 150  # characters
_MAX_SECTION = 3000  # characters
_MAX_URL = 3000  # characters
_BLOCKS = ("actions", "context", "divider", "header", "image", "input", "markdown", "rich_text", "section")


class SlackError(Exception):
    """An answer of Slack's: one word, such as ``invalid_payload``."""

    def __init__(self, status: int, word: str) -> None:
        """Set the HTTP status and the word."""
        super().__init__(word)
        self.status = status


def parse(path: str, body: bytes, headers: Mapping[str, str]) -> Received:
    """Return the message; raise SlackError as Slack would.

    path: what follows ``/services/``, three parts; the last one is the webhook's secret.
    """
    parts = path.split("/")
    if len(parts) != 3 or not all(parts):  # noqa: PLR2004 - team, app, secret
        raise SlackError(404, "no_service")
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        raise SlackError(400, "invalid_payload") from None
    if not isinstance(payload, dict):
        raise SlackError(400, "invalid_payload")
    text, blocks = payload.get("text", ""), payload.get("blocks", [])
    attached = payload.get("attachments", [])
    if not isinstance(text, str) or not isinstance(attached, list):
        raise SlackError(400, "invalid_payload")
    _check(blocks)
    for attachment in attached:
        _check(attachment.get("blocks", []) if isinstance(attachment, dict) else None)
    if not text and not blocks and not attached:
        raise SlackError(400, "no_text")
    lines = [line for holder in (blocks, attached) for line in _texts(holder)]
    subject = text or next(iter(lines), "")
    return Received(
        via="slack",
        sender=str(payload.get("username", "")),
        recipients=[str(payload.get("channel") or f"{parts[0]}/{parts[1]}")],
        subject=subject.split("\n", 1)[0],
        text="\n".join([text, *lines] if text else lines) + "\n",
        html="",
        headers=dict(headers),
        raw=body.decode(errors="replace"),
    )


def _check(blocks: object) -> None:
    if not isinstance(blocks, list) or len(blocks) > _MAX_BLOCKS:
        raise SlackError(400, "invalid_blocks")
    for block in blocks:
        if not isinstance(block, dict) or block.get("type") not in _BLOCKS:
            raise SlackError(400, "invalid_blocks")
        longest = {"header": _MAX_HEADER, "section": _MAX_SECTION}.get(block["type"])
        text = block.get("text")
        if longest and text is not None:
            content = text.get("text") if isinstance(text, dict) else None
            if not isinstance(content, str) or not 1 <= len(content) <= longest:
                raise SlackError(400, "invalid_blocks")
        if block["type"] == "header" and (not isinstance(text, dict) or text.get("type") != "plain_text"):
            raise SlackError(400, "invalid_blocks")
        if any(len(url) > _MAX_URL for url in _values(block, "url")):
            raise SlackError(400, "invalid_blocks")


def _texts(holder: object) -> Iterator[str]:
    """Yield every text a reader sees, in order."""
    return _values(holder, "text")


def _values(holder: object, name: str) -> Iterator[str]:
    if isinstance(holder, list):
        for item in holder:
            yield from _values(item, name)
    elif isinstance(holder, dict):
        for key, value in holder.items():
            if key == name and isinstance(value, str):
                yield value
            else:
                yield from _values(value, name)
