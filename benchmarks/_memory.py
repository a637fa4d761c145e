"""How much of the host's memory this process holds, or has held."""

from __future__ import annotations

import resource
from pathlib import Path


def host_memory(field: str) -> int:
    """Bytes now (``VmRSS``) or at the peak (``VmHWM``) of this process; not ru_maxrss, which counts the parent's too."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith(field))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: bytes, and only the peak
