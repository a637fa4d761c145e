"""Answers that refuse, and answers that speak of themselves as an AI.

A refusal counts only at the beginning of an answer. Where a story or a letter could begin with the same words ("I cannot write
without thinking of you"), it counts only if hardly anything else is said.
"""

from __future__ import annotations

from ultrafuser.synth.quality.words import any_of, any_words, plain, shown

START = 400  # characters in which a refusal must stand
CURT = 80  # words: an answer that refuses has little else to say
CANNOT = (
    r"i(?: really| simply| just)? ?(?:can't|can ?not|won't|will not|am unable to|'m unable to|am not able to|'m not able to|"
    r"will not be able to|won't be able to|must decline to)"
)
TASK = (
    r"(?:help|assist|comply|fulfil+|provide|create|write|generate|produce|answer|do that|engage|support|continue|discuss|share|"
    r"give|complete|process|perform|offer|respond|proceed|participate|facilitate|accommodate|carry out|browse|access|view|see|"
    r"open|read)"
)
AN_AI = r"an? (?:ai|artificial intelligence|(?:large )?language model|chatbot)\b"
POLITE = (
    r"(?:(?:hi|hello|hmm|well|oh|no|sorry|unfortunately|regrettably|but|thank you[^.!]{0,60}|i understand[^.!]{0,80}|"
    r"i appreciate[^.!]{0,60})[\s,.!-]*)*"
)
APOLOGY = r"(?:i(?:'m| am) (?:(?:really|very|truly|so|terribly) )*(?:sorry|afraid)|(?:my )?apologies|sorry|i apologi[sz]e)"

REFUSAL = any_of(
    rf"{APOLOGY}[^.!?]{{0,80}}?\b{CANNOT} (?:{TASK}|do|be)\b",
    rf"{CANNOT} (?:\w+ )?(?:help|assist|comply|fulfil+|answer|engage|proceed) (?:you|(?:with )?(?:that|this|your|such|any))\b",
    rf"{CANNOT} (?:\w+ ){{0,8}}?(?:requests?|prompt|harmful|illegal|unethical|inappropriate|copyrighted|explicit)\b",
    rf"as {AN_AI}[^.!?]{{0,120}}?\bi ?(?:can't|cannot|can not|won't|don't|do not|am not|'m not|am unable|have no|lack)\b",
    rf"i(?:'m| am) (?:just|only) {AN_AI}",
    r"i(?:'m| am) (?:not )?(?:programmed|designed|trained|allowed|permitted) (?:not )?to\b",
    r"i (?:must|have to|need to|will have to)? ?(?:respectfully |politely )?(?:decline|refuse) (?:to|this|that|your)\b",
    rf"i(?:'d| would) (?:rather|prefer) not (?:to )?{TASK}\b",
    r"i(?: do not| don't| am not|'m not) (?:feel )?comfortable (?:\w+ing|with (?:that|this|your))\b",
    rf"it (?:is not|isn't|would not be|wouldn't be) (?:appropriate|ethical|right) for me to {TASK}\b",
    rf"it (?:is|would be) (?:inappropriate|unethical|wrong) for me to {TASK}\b",
    r"(?:that|this|your) (?:request|question) (?:goes against|violates|is against|falls outside)\b",
    before=f"^{POLITE}",
)
CURT_REFUSAL = any_of(
    rf"{CANNOT} {TASK}\b(?! (?:but|being|falling|feeling|thinking|wondering|myself)\b)",
    r"i (?:do not|don't) have (?:access to|the ability to|enough (?:information|context)|(?:any )?information)\b",
    r"(?:could|can|would) you (?:please )?(?:provide|share|clarify)\b",
    r"please (?:provide|share|clarify) (?:the|more|your|me)\b",
    before=f"^{POLITE}",
)
AI_SELF = any_of(
    rf"as {AN_AI}(?: (?:language )?(?:model|assistant|system))?(?=,| i\b| my\b| developed| created| trained)",
    rf"i(?:'m| am) (?:just |only )?(?:{AN_AI}|a virtual assistant)",
    r"i(?:'m| am) (?:chatgpt|gpt-?\d|claude|gemini|llama|qwen)\b",
    r"i was (?:developed|created|trained) by (?:openai|anthropic|google|meta|alibaba|mistral|deepseek|microsoft)\b",
    r"my (?:training data|knowledge cut-?off|last (?:knowledge )?update)\b",
    r"i (?:do not|don't) have (?:personal (?:feelings|opinions|experiences|beliefs|emotions|preferences)|real-time data)",
    before=r"\b",
)
ABOUT_AI = any_words(r"ai|a\.i\.|artificial|language models?|llms?|chat ?bots?|gpt\S*|robots?|android|assistant")


def find_refusal(text: str) -> str | None:
    """The words with which ``text`` refuses, if it begins with a refusal."""
    start = _start(text)
    match = REFUSAL.match(start)
    if not match and len(text.split(None, CURT)) <= CURT:
        match = CURT_REFUSAL.match(start)
    return shown(match)


def find_refused_instruction(text: str) -> str | None:
    """As `find_refusal`, for an instruction: asking for something to be provided is no refusal there."""
    return shown(REFUSAL.match(_start(text)))


def find_ai_self(instruction: str, text: str) -> str | None:
    """The words with which ``text`` speaks of itself as an AI, unless ``instruction`` is about such."""
    return None if ABOUT_AI.search(instruction) else shown(AI_SELF.search(plain(text)))


def _start(text: str) -> str:
    return plain(text[: 2 * START])[:START].lstrip("*_#> ")
