#!/usr/bin/python3
"""Write when certificates end, as metrics for node_exporter's textfile collector.

    certificate_metrics.py OUTPUT PATTERN...

A pattern is the path of a certificate file (PEM or DER) and may hold ``*``. Of a file with several
certificates the first to end counts, since with it the chain is broken. A file that cannot be read or is no
certificate is reported as such, and so is a pattern without any file.

Only Python's standard library is used, so that nothing has to be installed on a watched host. It has no
public way to read a certificate; the few elements of DER that lead to the date are therefore read here.
"""

from __future__ import annotations

import base64
import binascii
import calendar
import glob
import os
import re
import sys
import tempfile
import time
from pathlib import Path

PEM = re.compile(rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----(.+?)-----END", re.DOTALL)
LONG_FORM = 0x80  # the length follows in as many bytes as the lower bits say
SEQUENCE, INTEGER, VERSION, UTC_TIME, GENERALIZED_TIME = 0x30, 0x02, 0xA0, 0x17, 0x18
NOT_AFTER = "node_certificate_not_after_timestamp_seconds"
READABLE = "node_certificate_readable"
HELP = {
    NOT_AFTER: "When the first certificate of the file ends, as a Unix timestamp.",
    READABLE: "Whether the file can be read and holds a certificate.",
}
MODE = 0o644


def read_element(data: bytes, position: int) -> tuple[int, bytes, int]:
    """Return tag and content of the DER element at ``position``, and the position after it."""
    tag, length, start = data[position], data[position + 1], position + 2
    if length >= LONG_FORM:
        size = length - LONG_FORM
        length, start = int.from_bytes(data[start : start + size], "big"), start + size
    end = start + length
    if end > len(data):
        raise ValueError("is cut short")
    return tag, data[start:end], end


def take(data: bytes, position: int, *tags: int) -> tuple[bytes, int]:
    """Return content of the element at ``position``, which must have one of the tags, and what is after."""
    tag, content, end = read_element(data, position)
    if tag not in tags:
        raise ValueError("is not a certificate")
    return content, end


def not_after(der: bytes) -> float:
    """Return when a certificate ends, as a Unix timestamp.

    :raises ValueError: it is no certificate.
    """
    try:
        certificate, _ = take(der, 0, SEQUENCE)
        body, _ = take(certificate, 0, SEQUENCE)
        position = read_element(body, 0)[2] if body[0] == VERSION else 0
        _, position = take(body, position, INTEGER)  # the serial number
        _, position = take(body, position, SEQUENCE)  # the algorithm of the signature
        _, position = take(body, position, SEQUENCE)  # the issuer
        validity, _ = take(body, position, SEQUENCE)
        _, position = take(validity, 0, UTC_TIME, GENERALIZED_TIME)
        tag = validity[position]
        text, _ = take(validity, position, UTC_TIME, GENERALIZED_TIME)
    except IndexError:
        raise ValueError("is cut short") from None
    date = text.decode("ascii")
    if tag == UTC_TIME:  # two digits of the year; RFC 5280: 50 to 99 are in the last century
        date = ("19" if date[:2] >= "50" else "20") + date
    return calendar.timegm(time.strptime(date, "%Y%m%d%H%M%SZ"))


def first_end(content: bytes) -> float:
    """Return when the first of the certificates in a file ends.

    :raises ValueError: there is none.
    """
    blocks = [base64.b64decode(block) for block in PEM.findall(content)]
    return min(not_after(der) for der in blocks or [content])


def ends(patterns: list[str]) -> dict[str, float | None]:
    """Return path to timestamp; None stands for a file without a certificate that can be read."""
    found: dict[str, float | None] = {}
    for pattern in patterns:
        for path in sorted(glob.glob(pattern)) or [pattern]:  # noqa: PTH207 - an absolute pattern
            try:
                found[path] = first_end(Path(path).read_bytes())
            except (OSError, ValueError, binascii.Error) as error:
                found[path] = None
                sys.stderr.write(f"{path}: {error}\n")
    return found


def render(found: dict[str, float | None]) -> str:
    """Return the metrics in Prometheus' text format."""
    lines: list[str] = []
    for name, text in HELP.items():
        lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
        for path, end in found.items():
            label = path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            if name == READABLE:
                lines.append(f'{name}{{path="{label}"}} {int(end is not None)}')
            elif end is not None:
                lines.append(f'{name}{{path="{label}"}} {end:.0f}')
    return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> None:
    """Replace the file in one step: node_exporter never reads half of it."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            os.fchmod(stream.fileno(), MODE)
            stream.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise


if __name__ == "__main__":
    if not sys.argv[2:]:
        sys.exit("usage: certificate_metrics.py OUTPUT PATTERN...")
    write(Path(sys.argv[1]), render(ends(sys.argv[2:])))
