"""Memory and swap."""

from __future__ import annotations

import psutil

from .families import Metrics, counter, gauge, old_gauge

PERCENT = 100
_MEMORY = {
    "total": ("size", "All of the memory."),
    "available": ("available", "Memory that programs can get without swapping."),
    "used": ("used", "Memory in use, without buffers and cache."),
    "free": ("free", "Memory that is used for nothing."),
    "active": ("active", "Memory that was used lately."),
    "inactive": ("inactive", "Memory that was not used lately."),
    "buffers": ("buffers", "Memory that holds metadata of file systems."),
    "cached": ("cached", "Memory that holds contents of files."),
    "shared": ("shared", "Memory that several processes may use."),
    "slab": ("slab", "Memory of the kernel's own data."),
}
"""psutil's name to the middle of ours, and the help text."""


def memory() -> Metrics:
    """Return the metrics of memory."""
    now = psutil.virtual_memory()
    metrics = [
        gauge(f"host_memory_{name}_bytes", text, getattr(now, field))
        for field, (name, text) in _MEMORY.items()
        if hasattr(now, field)
    ]
    ratio = (now.total - now.available) / now.total
    return [
        *metrics,
        gauge("host_memory_usage_ratio", "Share of the memory that is not available.", ratio),
        old_gauge("mem", "Memory", "Memory that is not available, percent.", PERCENT * ratio),
    ]


def swap() -> Metrics:
    """Return the metrics of swap; a host without any uses nothing of it."""
    now = psutil.swap_memory()
    return [
        gauge("host_swap_size_bytes", "All of the swap space.", now.total),
        gauge("host_swap_used_bytes", "Swap space in use.", now.used),
        gauge("host_swap_free_bytes", "Swap space not in use.", now.free),
        gauge("host_swap_usage_ratio", "Share of the swap space in use.", now.percent / PERCENT),
        counter("host_swap_in_bytes", "Memory read back from swap.", now.sin),
        counter("host_swap_out_bytes", "Memory written to swap.", now.sout),
    ]
