"""Phrases that give a bad text away: placeholders nobody filled in, material that an instruction speaks of but does not bring."""

from __future__ import annotations

import re
from collections.abc import Callable

from ultrafuser.synth.quality.markdown import read_markdown
from ultrafuser.synth.quality.words import any_of, any_words, plain, shown

LONG = 600  # characters: an instruction so long has its material with it

PLACEHOLDER = any_of(
    r"\[ ?(?:please )?(?:insert|add|enter|fill in|specify|put|replace)\b[^\]]{0,80}\](?!\()",
    r"\[ ?your (?:\w+ ?){1,3}\](?!\()",
    r"<(?:insert|your|fill in) [^>]{1,60}>",
)
BARE_PLACEHOLDER = any_of(
    r"(?:topic|(?:\w+ )?name|subject|company|product|city|date|theme|concept|occupation|position|hobby)",
    before=r"(?:^|(?<=[\s(,#]))\[",
    after=r"\](?!\()",
)
FORM = any_words(  # texts that are meant to be filled in
    r"templates?|placeholders?|letter|e-?mails?|form|fill in|blanks?|memo|message|note|card|postcard|resume|cv|invoice|contract",
    r"press release|speech|script|invitation|introduce|introduction|advertisement|boilerplate",
)
CODE = any_words(
    r"code|function|method|program|python|java|javascript|ruby|html|css|sql|php|c\+\+|command|string|format|api|array|regex|outputs?",
)

SIGHT = "(?:image|picture|photo(?:graph)?|screenshot|diagram|figure|chart|graph|audio|recording|video|map|illustration|drawing)"
CODE_TEXT = "(?:code|snippet|function|program|script|class|method|query)"
PROSE_TEXT = (
    "(?:passage|article|text|paragraph|excerpt|table|data(?:set)?|document|file|poem|sentences?|e-?mail|list|story|essay|quote|"
    "conversation|dialogue|statements?)"
)
ATTACHED = any_words(
    rf"attached (?:{SIGHT}|{PROSE_TEXT}|{CODE_TEXT}|spreadsheet|pdf)",
    rf"(?:{SIGHT}|{PROSE_TEXT}|spreadsheet|pdf) (?:that (?:is|was) |i(?:'ve| have) )?(?:attached|uploaded)",
    r"(?:see|in|from|look at) the attachment",
    rf"(?:in|on|from|describe|look at|see|analy[sz]e|identify|study) (?:the|this) {SIGHT} (?:below|above|provided|given|shown)",
    rf"(?:the|this) (?:following|above) {SIGHT}",
    r"(?:as )?shown in (?:figure|fig\.|the figure|the diagram|the image)",
)
LINK = any_of(
    r"(?:summari[sz]e|read|visit|watch|check out|review|according to|based on|go to)\b[^.?!]{0,60}?(?:https?://|www\.)\S+",
    r"(?:at|in|from|open|visit|follow|click) (?:this|the following|the provided) (?:link|url|web ?page|website)\b(?!.{0,20}https?://)",
    before=r"\b",
)
UNSEEN = (
    r"(?:the|this) (?:following|above|provided|below|aforementioned) {0}|the {0} (?:above|below|provided|given below|given above)"
)
UNSEEN_PROSE = any_words(
    UNSEEN.format(PROSE_TEXT),
    r"the given (?:passage|article|paragraph|excerpt|essay|poem)",
    r"(?:from|in) (?:the )?(?:previous|last|earlier) (?:exercise|conversation|chapter|section|lesson)",
)
UNSEEN_CODE = any_words(UNSEEN.format(CODE_TEXT), r"(?:the|this) given (?:code|snippet|script)")


def find_placeholder(text: str, *, instruction: str = "") -> str | None:
    """A placeholder such as ``[insert name]`` outside of code; ``instruction`` is what the text answers, if it is an answer.

    Letters, templates and the like may have placeholders, and single words in brackets mean something else near code.
    """
    if "[" not in text and "<" not in text:
        return None
    context = instruction or text
    if FORM.search(context):
        return None
    prose = plain(read_markdown(text).prose)
    match = PLACEHOLDER.search(prose)
    if not match and not CODE.search(context):
        match = BARE_PLACEHOLDER.search(prose)
    return shown(match)


def find_unseen(text: str) -> str | None:
    """What an instruction speaks of without bringing it along: an attachment, a picture, a web page, a text above or below."""
    flat = plain(text)
    match = ATTACHED.search(flat)
    if not match and "\n" not in text.strip() and len(text) < LONG:
        match = LINK.search(flat) or _missing(flat, UNSEEN_PROSE, _has_prose) or _missing(flat, UNSEEN_CODE, _has_code)
    return shown(match)


def _missing(text: str, mention: re.Pattern[str], is_there: Callable[[str], bool]) -> re.Match[str] | None:
    match = mention.search(text)
    return None if match is None or is_there(text[match.end() :]) else match


def _has_prose(rest: str) -> bool:
    """Can what is spoken of be in ``rest``: words after a colon or a full stop, in quotes or in brackets?"""
    return re.search(r"[:.?!] *\S+ +\S+|['\"`\[({]\S", rest) is not None


def _has_code(rest: str) -> bool:
    return re.search(r"[`=;{}]|\w\(|: *\S+", rest) is not None
