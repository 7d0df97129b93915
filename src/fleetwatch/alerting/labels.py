"""What names an alert: its labels."""

from __future__ import annotations


def fingerprint(labels: dict[str, str]) -> str:
    """Return what Prometheus and Alertmanager call the alert with these labels (64-bit FNV-1a, hex)."""
    value = 0xCBF29CE484222325
    for name, text in sorted(labels.items()):
        for byte in name.encode() + b"\xff" + text.encode() + b"\xff":
            value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"
