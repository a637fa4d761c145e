"""Do the specialists share one vocabulary? Checked string by string, never assumed (issue 2, part 2; docs/design.md, "Slots").

The tokenizer with the fewest tokens that others lack becomes the fused one (the base), and the others are compared with it:

- an ordinary token of the base that has another id elsewhere, or whose id has another string elsewhere, is a conflict: refused;
- a *special* token of the base in that state (a renamed reserved token, a padding token that each finetune put at its own
  place) is masked: text does not contain it, and templates reach a specialist's own through slots;
- a token that only some have, or whose id is beyond a specialist's embedding rows, is masked: never predicted;
- what the base does not have is dropped: the fused vocabulary has neither ids beyond the base's nor other strings for its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ultrafuser.errors import UserError, plural
from ultrafuser.tokens.borders import encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHOWN = 5  # how many tokens a message names
PROBES = (
    "12345 + 6.78 = 12351.78",
    "def f(x):\n    return x  # two",
    "Où? naïve 中文 🙂",
    "  leading, trailing  ",
    "It's won't\t<b>",
)


@dataclass(frozen=True)
class VocabularyAgreement:
    """``slot_start``: the first free id, beyond every id of the base. ``masked_token_ids``: ids below it that not all share.

    ``base``: the specialist whose tokenizer becomes the fused one. ``notes``: what was masked, dropped, split otherwise.
    """

    slot_start: int
    masked_token_ids: list[int]
    base: str
    notes: tuple[str, ...]


def agree(tokenizers: Mapping[str, PreTrainedTokenizerBase], rows: Mapping[str, int]) -> VocabularyAgreement:
    """Compare the specialists' vocabularies; ``rows`` gives the rows of each one's embedding table.

    Raises `UserError` that names the first conflicting tokens and the specialists, see the top of this file.
    """
    vocabularies = {
        name: {token: index for token, index in tokenizer.get_vocab().items() if index < rows[name]}
        for name, tokenizer in tokenizers.items()
    }
    shared = set.intersection(*(set(vocabulary.items()) for vocabulary in vocabularies.values()))
    base = min(tokenizers, key=lambda name: len(tokenizers[name].get_vocab()) - len(shared))
    special = {str(token.content) for token in tokenizers[base].added_tokens_decoder.values() if token.special}
    for name in tokenizers:
        _refuse_conflicts(vocabularies, base, name, special)
    whole = tokenizers[base].get_vocab()
    slot_start = max(whole.values()) + 1
    masked = sorted(set(range(slot_start)) - {index for _, index in shared})
    dropped = {name: vocabulary.items() - whole.items() for name, vocabulary in vocabularies.items()}
    notes = [*_masked_notes(masked, whole), *_dropped_notes(dropped), *_tokenisation_notes(tokenizers, base)]
    return VocabularyAgreement(slot_start, masked, base, tuple(notes))


def _refuse_conflicts(vocabularies: Mapping[str, Mapping[str, int]], base: str, other: str, special: set[str]) -> None:
    """Raise `UserError` when ``other`` has another string at an ordinary id of the base, or another id for its string."""
    ours, theirs = vocabularies[base], vocabularies[other]
    at_id = {index: token for token, index in theirs.items()}
    conflicts = [
        f"id {index} is {token!r} in '{base}' but {at_id[index]!r} in '{other}'"
        if at_id.get(index, token) != token
        else f"{token!r} is id {index} in '{base}' but id {theirs[token]} in '{other}'"
        for token, index in sorted(ours.items(), key=lambda item: item[1])
        if token not in special and (at_id.get(index, token) != token or theirs.get(token, index) != index)
    ]
    if conflicts:
        more = f" and {len(conflicts) - SHOWN} more" if len(conflicts) > SHOWN else ""
        raise UserError(
            f"the vocabularies of '{base}' and '{other}' conflict: {'; '.join(conflicts[:SHOWN])}{more}; "
            "only specialists of one vocabulary can be fused"
        )


def _masked_notes(masked: list[int], vocabulary: Mapping[str, int]) -> list[str]:
    """A sentence about the ids that are never predicted."""
    if not masked:
        return []
    string = {index: token for token, index in vocabulary.items()}
    named = ", ".join(f"{index} {string[index]!r}" if index in string else f"{index} (unused)" for index in masked[:SHOWN])
    more = ", .." if len(masked) > SHOWN else ""
    are = "is" if len(masked) == 1 else "are"
    return [f"{plural(len(masked), 'token id')} {are} not shared by all specialists and will never be predicted: {named}{more}"]


def _dropped_notes(dropped: Mapping[str, set[tuple[str, int]]]) -> list[str]:
    """A sentence per specialist about those of its tokens (string and id) that the fused vocabulary has not."""
    notes = []
    for name, tokens in dropped.items():
        if tokens:
            first = sorted((index, token) for token, index in tokens)[:SHOWN]
            named = ", ".join(f"{index} {token!r}" for index, token in first) + (", .." if len(tokens) > SHOWN else "")
            notes.append(f"the fused vocabulary drops {plural(len(tokens), 'token')} of '{name}': {named}")
    return notes


def _tokenisation_notes(tokenizers: Mapping[str, PreTrainedTokenizerBase], base: str) -> list[str]:
    """A sentence per specialist that splits a probe text otherwise than the base, though the vocabulary is the same."""
    notes = []
    for name, tokenizer in tokenizers.items():
        unlike = [text for text in PROBES if encode(tokenizer, text) != encode(tokenizers[base], text)]
        if unlike:
            notes.append(
                f"'{name}' splits text otherwise than '{base}' ({len(unlike)} of {len(PROBES)} probes, e.g. {unlike[0]!r}): "
                f"the fused model splits it as '{base}' does"
            )
    return notes
