"""What one generated program may use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Output beyond ``output_bytes`` is cut off. No file may grow beyond ``file_bytes``, nor all together beyond
    ``folder_bytes``: in namespaces there is no more room, elsewhere the program is killed a moment later, as it is for more
    than 4096 files. ``processes`` counts processes and threads beyond the program's first; memory is that of one process."""

    wall_seconds: float = 5.0
    cpu_seconds: float = 5.0
    memory_bytes: int = 512 * 2**20
    file_bytes: int = 2**20
    folder_bytes: int = 2**24
    output_bytes: int = 2**16
    open_files: int = 32
    processes: int = 0
