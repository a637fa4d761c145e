"""What one generated program may use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Output beyond ``output_bytes`` is cut off, no file may grow beyond ``file_bytes``, nor (in namespaces) all together beyond
    ``folder_bytes``. ``processes`` counts processes and threads beyond the program's first; memory is that of one process."""

    wall_seconds: float = 5.0
    cpu_seconds: float = 5.0
    memory_bytes: int = 512 * 2**20
    file_bytes: int = 2**20
    folder_bytes: int = 2**24
    output_bytes: int = 2**16
    open_files: int = 32
    processes: int = 0
