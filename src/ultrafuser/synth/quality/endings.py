"""Was an answer cut off? The endpoint often says so; where it does not, only endings that no finished text has count.

A missing full stop is no such ending: lists, headings, code, formulas and many people's answers have none.
"""

from __future__ import annotations

import re

from ultrafuser.synth.quality.markdown import Document

WORDS = 6  # a last line of fewer may be a closing formula, a name or an item of a list
# Words that need another word after them, whatever the sentence is ..
DANGLING = "the|an|nor|than|because|although|whereas|whose|unless|their|its|your|our|my|is|was|were"
# .. but for these before them: "that is what it is".
BEFORE = "what|who|where|how|it|there|that|they|we|i|he|she|you|this|here|and|or"
LAST_WORDS = re.compile(rf"(?<!\S)(?!(?:{BEFORE}) )\S*\w (?:{DANGLING})$", re.IGNORECASE)
ITEM = re.compile(r"^\s*(?:[-*+•]|\d{1,3}[.)])(?:\s|$)")
CODE = re.compile(r"[=;{}<>\\|]|\w\(")


def cut_off(document: Document, text: str, finish_reason: str) -> str | None:
    """How one can tell that the answer ``text``, read as ``document``, is not finished, or None."""
    if finish_reason == "length":
        return "token limit reached"
    if finish_reason == "content_filter":
        return "stopped by the endpoint's content filter"
    lines = [line for line in text.rstrip().split("\n") if line.strip()]
    if not lines or lines[-1].lstrip().startswith(("```", "~~~")) or any(not block.closed for block in document.blocks):
        return None  # the rule for fences judges these
    if len(lines) > 1 and ITEM.fullmatch(lines[-1]) and ITEM.match(lines[-2]):
        return "ends in an empty list item"
    return _open_sentence(lines[-1].rstrip())


def _open_sentence(line: str) -> str | None:
    if len(line.split()) < WORDS or CODE.search(line):
        return None
    if line.endswith((",", "(", "[", "“")):
        return f"ends in '{line[-1]}'"
    match = LAST_WORDS.search(line)
    return f"ends in '{match[0]}'" if match and not line.startswith("#") else None
