"""Does an answer leave the instruction's writing system or language?

Writing systems are told by the Unicode names of the letters. Languages in Latin letters are told by their function words, and
only where both texts are clear. Neither is judged where an instruction names a language or asks to translate.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

from ultrafuser.synth.quality.words import any_words

SHARE = 0.05  # of the letters: more of them in a script that the instruction does not have is a mix
LETTERS = 15  # fewer do not count: a name, a term
# Scripts a sign of which says as much as several letters of an alphabet.
WEIGHTS = {"CJK": 3, "HIRAGANA": 2, "KATAKANA": 2, "HANGUL": 2}
JAPANESE = {"CJK", "HIRAGANA", "KATAKANA"}
# What formulas and units are written with.
NEUTRAL = {"", "MATHEMATICAL", "MODIFIER", "SUBSCRIPT", "SUPERSCRIPT", "DOUBLE-STRUCK", "SCRIPT", "BLACK-LETTER", "EULER"}
NEUTRAL |= {"MASCULINE", "FEMININE", "MICRO", "FULLWIDTH", "HALFWIDTH", "ALEF", "GREEK", "PLANCK", "KELVIN", "ANGSTROM", "OHM"}
NEUTRAL.add("INFORMATION")
ABOUT_LANGUAGE = any_words(
    r"translat\w*|languages?|alphabet|transliterat\w*|romaji|pinyin|kanji|hanzi|hangul|hiragana|katakana|cyrillic|unicode|utf-?8",
    r"multilingual|bilingual|locali[sz]\w*|i18n|etymolog\w*|pronunciation|vocabulary|phrases?|idioms?|greetings?",
    r"english|spanish|french|german|italian|portuguese|dutch|russian|ukrainian|polish|greek|turkish|arabic|hebrew|persian|farsi",
    r"hindi|urdu|sanskrit|bengali|tamil|telugu|thai|vietnamese|indonesian|chinese|mandarin|cantonese|japanese|korean|latin|swedish",
    r"norwegian|danish|finnish|czech|hungarian|romanian|swahili|italy|spain|mexico|france|germany|china|japan|korea|russia|india|brazil",
)
WORDS = 40  # an answer of fewer is not clear
FUNCTION_WORDS = {
    "English": "the and of to that is was for with are this from have not which you",
    "Spanish": "el los las una del que por con para es está como más pero este se",
    "French": "le les des une est dans que qui pour avec sur pas nous vous sont cette",
    "German": "der die das und ist nicht ein eine mit auf für von dem den sich auch",
    "Italian": "il gli che di della una per con non sono come anche questo nel più è",
    "Portuguese": "os uma do da que não para com por mais como em são você ao pelo",
    "Dutch": "de het een van en dat niet op met voor zijn aan ook er wordt die",
    "Indonesian": "yang dan di untuk dengan dari ini itu pada adalah tidak dalam akan ke atau oleh",
}
LANGUAGES_OF = {
    word: tuple(name for name, words in FUNCTION_WORDS.items() if word in words.split())
    for words in FUNCTION_WORDS.values()
    for word in words.split()
}


def language_problem(instruction: str, prose: str) -> str | None:
    """What of ``prose``, an answer without its code, is not in the instruction's script or language, or None."""
    if ABOUT_LANGUAGE.search(instruction):
        return None
    return _foreign_script(instruction, prose) or _foreign_language(instruction, prose)


def script_shares(text: str) -> dict[str, float]:
    """The share of every writing system among the letters of ``text``; empty if there are too few letters to say."""
    counts: Counter[str] = Counter()
    for character, count in Counter(text).items():
        script = script_of(character)
        if script not in NEUTRAL:
            counts[script] += count * WEIGHTS.get(script, 1)
    total = sum(counts.values())
    return {script: count / total for script, count in counts.items() if count >= LETTERS or script == "LATIN"}


@lru_cache(maxsize=4096)
def script_of(character: str) -> str:
    """The writing system of a letter, the first word of its Unicode name; empty for what is no letter."""
    return unicodedata.name(character, "").partition(" ")[0] if character.isalpha() else ""


def language_of(text: str, *, words: int = WORDS) -> str | None:
    """The language in Latin letters that ``text`` is written in, if it has so many ``words`` and leaves no doubt."""
    found = re.findall(r"[^\W\d_]+", text.lower())
    counts = dict.fromkeys(FUNCTION_WORDS, 0.0)
    for word in found:
        for name in LANGUAGES_OF.get(word, ()):
            counts[name] += 1 / len(LANGUAGES_OF[word])  # a word of several languages says less
    first = max(counts, key=counts.__getitem__)
    most, next_most = counts[first], max(count for name, count in counts.items() if name != first)
    return first if len(found) >= words and most >= max(3, 0.12 * len(found), 2 * next_most) else None


def _foreign_script(instruction: str, prose: str) -> str | None:
    own, shares = script_shares(instruction), script_shares(prose)
    for script, share in shares.items():
        related = script in own or (script in JAPANESE and own.keys() & JAPANESE)
        if share >= SHARE and script != "LATIN" and not related:
            return f"{share:.0%} of the letters are {script if script == 'CJK' else script.capitalize()}"
    if shares.get("LATIN", 0) > 0.8 and own and own.get("LATIN", 0) < 0.2:
        return "answers in Latin letters, the instruction has others"
    return None


def _foreign_language(instruction: str, prose: str) -> str | None:
    answered = language_of(prose)
    if answered in (None, "English") and instruction.isascii():
        return None  # the usual case, and quick
    asked = language_of(instruction, words=0)
    return f"answers in {answered}, asked in {asked}" if asked and answered and asked != answered else None
