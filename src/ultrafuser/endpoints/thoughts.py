"""What a reasoning model thinks aloud is no part of its answer, whether a benchmark, a judge or the synthesis reads that."""

from __future__ import annotations


def without_thoughts(text: str) -> str:
    """What ``text`` says after its thoughts, ``<think>..</think>``; nothing if they never end."""
    return text.rpartition("</think>")[2].partition("<think>")[0]
