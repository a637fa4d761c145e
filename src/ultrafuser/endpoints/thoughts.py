"""What a reasoning model thinks aloud is no part of its answer, whether a benchmark, a judge or the synthesis reads that."""

from __future__ import annotations

import re

OPEN, CLOSE = "<think>", "</think>"
# Tags in quotes or backticks are spoken of, and open or close nothing.
_TAGS = re.compile(r"""(?P<quote>['"`])(?:</?think>|<think>[^\n]*?</think>)(?P=quote)|</?think>""")


def without_thoughts(text: str) -> str:
    """What ``text`` says after its thoughts, ``<think>..</think>``; nothing if they never end.

    Only a text that begins with thoughts has any. Some servers leave their first tag out, so one that begins by closing them
    has, too; an answer that merely speaks of such tags stays whole.
    """
    if text.lstrip().startswith(OPEN):
        said = text.partition(CLOSE)[2]  # whatever it ends with: thoughts may end with a quote too
    elif (tags := _tags(text)) and tags[0][0] == CLOSE:
        said = text[tags[0].end() :]
    else:
        return text
    tags = _tags(said)  # of further thoughts, in between
    start = max((tag.end() for tag in tags if tag[0] == CLOSE), default=0)
    end = next((tag.start() for tag in tags if tag.start() >= start), len(said))
    return said[start:end]


def _tags(text: str) -> list[re.Match[str]]:
    return [found for found in _TAGS.finditer(text) if not found["quote"]]
