# Copyright (c) The Fleetwatch authors
# SPDX-License-Identifier: MIT
"""OpenPGP keys (RFC 4880 and 9580), as far as needed to pin them: dearmour, split, fingerprint.

Hosts need no gpg for it. Whether a signature is good is for apt to say.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator

PUBLIC_KEY = 6
_ARMOR = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(?:[^\r\n:]+:[^\r\n]*\r?\n)*\r?\n?(.*?)"
    rb"-----END PGP PUBLIC KEY BLOCK-----",
    re.DOTALL,
)


class KeyFileError(ValueError):
    """The file does not hold OpenPGP keys."""


def dearmored(content: bytes) -> bytes:
    """Return the packets of a key file, armoured (one block or several) or not.

    :raises KeyFileError: it holds none.
    """
    blocks = _ARMOR.findall(content)
    if not blocks:
        if not content or not content[0] & 0x80:
            raise KeyFileError("it is not an OpenPGP key file")
        return content
    result = b""
    for block in blocks:
        lines = [line.strip() for line in block.splitlines()]
        text = b"".join(line for line in lines if line and not line.startswith(b"="))  # =…: the checksum
        try:
            result += base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise KeyFileError(f"its armour is damaged ({error})") from error
    return result


def packets(content: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield each packet as its tag, its body, and all of it.

    :raises KeyFileError: it ends too early, or is written in a way that keys are not.
    """
    start = 0
    while start < len(content):
        try:
            tag, head, length = _header(content, start)
        except IndexError as error:
            raise KeyFileError("it ends in the middle of a packet") from error
        end = start + head + length
        if end > len(content):
            raise KeyFileError("it ends in the middle of a packet")
        yield tag, content[start + head : end], content[start:end]
        start = end


def _header(content: bytes, start: int) -> tuple[int, int, int]:
    """Return a packet's tag, and the lengths of its header and body."""
    first = content[start]
    if not first & 0x80:
        raise KeyFileError("it is not an OpenPGP key file")
    if not first & 0x40:  # the old format
        size = {0: 1, 1: 2, 2: 4}.get(first & 3)
        if size is None:
            raise KeyFileError("it has a packet without a length")
        content[start + size]  # raises when it is cut off
        return (first >> 2) & 0xF, 1 + size, int.from_bytes(content[start + 1 : start + 1 + size], "big")
    one = content[start + 1]
    if one < 192:  # noqa: PLR2004 - the limits are those of the standard
        return first & 0x3F, 2, one
    if one < 224:  # noqa: PLR2004
        return first & 0x3F, 3, ((one - 192) << 8) + content[start + 2] + 192
    if one == 255:  # noqa: PLR2004
        content[start + 5]
        return first & 0x3F, 6, int.from_bytes(content[start + 2 : start + 6], "big")
    raise KeyFileError("it has a packet in parts")


def keys(content: bytes) -> dict[str, bytes]:
    """Return fingerprint -> packets of each primary key in a key file, its subkeys and signatures included.

    :raises KeyFileError: it holds no key.
    """
    found: dict[str, bytes] = {}
    current = ""
    for tag, body, whole in packets(dearmored(content)):
        if tag == PUBLIC_KEY:
            current = fingerprint(body)
        if not current:
            raise KeyFileError("it does not begin with a key")
        found[current] = found.get(current, b"") + whole
    if not found:
        raise KeyFileError("it holds no key")
    return found


def fingerprint(body: bytes) -> str:
    """Return the fingerprint of a public key packet in capital hexadecimal digits."""
    if body[:1] == b"\x04":
        material = b"\x99" + len(body).to_bytes(2, "big") + body
        return hashlib.sha1(material, usedforsecurity=False).hexdigest().upper()  # what the format says
    if body[:1] == b"\x06":
        return hashlib.sha256(b"\x9b" + len(body).to_bytes(4, "big") + body).hexdigest().upper()
    raise KeyFileError("it has a key of a version that is not known")
