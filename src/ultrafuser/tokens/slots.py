"""Slot tokens: one token stream for specialists with unlike chat templates (docs/design.md, "Slots").

A slot token stands for one token of a template piece. Its fused embedding row holds, in chunk j, the row of the token that
specialist j's own template has there; where that template is shorter, the slot is hidden from specialist j. Shorter
token lists are aligned to the right, so that the last slot before a content is visible to all that have one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ultrafuser.errors import UserError
from ultrafuser.tokens.borders import adds_space, anchor, encode_after
from ultrafuser.tokens.pieces import PIECES, TemplatePieces
from ultrafuser.tokens.templates import FUSED, template_source
from ultrafuser.tokens.vocabulary import VocabularyAgreement

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

END, PAD = "<|uf:end|>", "<|uf:pad|>"


@dataclass(frozen=True)
class SlotPlan:
    """S slots for N specialists; slot i has the fused id ``slot_start + i``. Without slots ``slot_tokens`` is empty.

    ``slot_sources`` (S, N): the specialist's own token id whose row the slot's chunk copies; None hides the slot from it.
    ``end_sources`` (N,): each one's own end token. Ids from ``predictable_vocab_size`` on are never predicted, nor are
    ``masked_token_ids``. ``eos_token_ids``: the fused end token, then the specialists' own that the fused vocabulary holds.
    ``notes``: where the fused template has another space before a content than a specialist's own.
    """

    slot_start: int
    slot_tokens: list[str]
    slot_sources: list[list[int | None]]
    end_token_id: int
    end_sources: list[int]
    predictable_vocab_size: int
    masked_token_ids: list[int]
    eos_token_ids: list[int]
    chat_template: str
    notes: tuple[str, ...] = ()


def plan_slots(
    pieces: Mapping[str, TemplatePieces], agreement: VocabularyAgreement, base_tokenizer: PreTrainedTokenizerBase
) -> SlotPlan:
    """Plan the slots of specialists with these pieces, in the order of ``pieces``.

    When all have the same pieces of shared tokens there are no slots, and the template is ``base_tokenizer``'s: set the one
    in use on it first. ``base_tokenizer`` is that of ``agreement.base``.
    """
    masked = {*agreement.masked_token_ids}
    ends = [own.end for own in pieces.values()]
    if _are_common(list(pieces.values()), masked, agreement.slot_start):
        return _plan(agreement, {}, ends, ends[0], str(base_tokenizer.get_chat_template()))
    slots: dict[str, list[int | None]] = {}
    end_is_slot = not _is_shared(ends, masked, agreement.slot_start)
    if end_is_slot:
        slots[END] = [*ends]
    space_ids = _space_ids(base_tokenizer)
    names, spaces = _piece_slots(list(pieces.values()), space_ids, slots)
    if base_tokenizer.pad_token is None:
        slots[PAD] = [None] * len(pieces)
    end_id = agreement.slot_start if end_is_slot else ends[0]
    end_token = END if end_is_slot else str(base_tokenizer.convert_ids_to_tokens(end_id))
    plan = _plan(agreement, slots, ends, end_id, _fused_template(names, spaces, end_token))
    return replace(plan, notes=_space_notes(pieces, space_ids, adds_space(base_tokenizer)))


def build_fused_tokenizer(base_tokenizer: PreTrainedTokenizerBase, plan: SlotPlan) -> PreTrainedTokenizerFast:
    """A changed copy of the base tokenizer: slot tokens, the fused chat template, its end as eos, and a pad token.

    Without slots and without a pad token of its own, the end token pads. It pads on the left, as generation needs. It is of
    the generic class, which reads all from tokenizer.json; a model family's class would rebuild parts of it by its own rules.
    Raises `UserError` when the base is not a fast tokenizer or cannot give the slots their ids.
    """
    from transformers import PreTrainedTokenizerFast

    if not base_tokenizer.is_fast:
        raise UserError(f"{base_tokenizer.name_or_path}: its tokenizer has no tokenizer.json; save it as a fast tokenizer first")
    fused = PreTrainedTokenizerFast(
        tokenizer_object=base_tokenizer._tokenizer,
        **base_tokenizer.special_tokens_map,
        extra_special_tokens=[*base_tokenizer.extra_special_tokens, *plan.slot_tokens],
        model_max_length=base_tokenizer.model_max_length,
        clean_up_tokenization_spaces=base_tokenizer.clean_up_tokenization_spaces,
        padding_side="left",
    )
    vocabulary = fused.get_vocab()
    ids = [vocabulary[token] for token in plan.slot_tokens]
    if ids != list(range(plan.slot_start, plan.slot_start + len(ids))):
        raise UserError(
            f"{base_tokenizer.name_or_path}: its tokenizer leaves ids unused or already has slot tokens, so that "
            f"{plan.slot_tokens[0]!r} gets id {ids[0]}, not {plan.slot_start}; a fused model cannot be fused again"
        )
    fused.chat_template = plan.chat_template
    fused.eos_token = fused.convert_ids_to_tokens(plan.end_token_id)
    if fused.pad_token is None:
        fused.pad_token = PAD if PAD in plan.slot_tokens else fused.eos_token
    return fused


def _is_shared(ids: list[int], masked: set[int], slot_start: int) -> bool:
    """Whether these ids are one and the same token, and one that the fused vocabulary shares."""
    return len(set(ids)) == 1 and ids[0] not in masked and ids[0] < slot_start


def _are_common(pieces: list[TemplatePieces], masked: set[int], slot_start: int) -> bool:
    """Whether all specialists have the same pieces, spaces and end, all of shared tokens."""
    spelled = {(own.end, *((tuple(own[piece]), own.border(piece).space) for piece in PIECES)) for own in pieces}
    used = {i for piece in PIECES for i in pieces[0][piece]} | {pieces[0].end}
    return len(spelled) == 1 and all(_is_shared([i], masked, slot_start) for i in used)


def _space_ids(base_tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens of a space between a piece and a content; none where the tokenizer adds spaces itself or drops them."""
    return [] if adds_space(base_tokenizer) else encode_after(base_tokenizer, " ", [anchor(base_tokenizer)])


def _piece_slots(
    pieces: list[TemplatePieces], space_ids: list[int], slots: dict[str, list[int | None]]
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Add the slots of every piece to ``slots``; give the slot tokens of each piece and the space before its content.

    The space before a content is the fused template's only if all have it there. Else those that have one get it back as
    their last token.
    """
    names, spaces = {}, {}
    for piece in PIECES:
        spaced = [own.border(piece).space for own in pieces]
        lists = [own[piece] + space_ids * (space and not all(spaced)) for own, space in zip(pieces, spaced, strict=True)]
        width = max(map(len, lists))
        names[piece] = [f"<|uf:{piece}:{i}|>" for i in range(width)]
        aligned = [[None] * (width - len(ids)) + ids for ids in lists]
        slots.update(zip(names[piece], map(list, zip(*aligned, strict=True)), strict=True))
        spaces[piece] = " " * (all(spaced) and bool(space_ids))
    return names, spaces


def _space_notes(pieces: Mapping[str, TemplatePieces], space_ids: list[int], adds: bool) -> tuple[str, ...]:
    """A sentence per specialist that has a space before a content where the fused template has none, or the reverse."""
    notes = []
    for name, own in pieces.items() if adds or space_ids else ():
        fused = {piece: adds or all(other.border(piece).space for other in pieces.values()) for piece in PIECES}
        unlike = ", ".join(piece for piece in PIECES if own.border(piece).space != fused[piece])
        if unlike:
            having = ("no space", "has one") if adds else ("a space joined to it", "has not")
            notes.append(f"'{name}' knows a content after {unlike} with {having[0]}, the fused template {having[1]}")
    return tuple(notes)


def _fused_template(names: Mapping[str, list[str]], spaces: Mapping[str, str], end: str) -> str:
    """The fused chat template: our fixed Jinja body behind the texts of the pieces."""
    texts = {piece: "".join(tokens) for piece, tokens in names.items()}
    values = {"pieces": texts, "spaces": dict(spaces), "end": end}
    head = "".join(f"{{%- set {key} = {json.dumps(value)} -%}}\n" for key, value in values.items())
    return head + template_source(FUSED)


def _plan(
    agreement: VocabularyAgreement, slots: Mapping[str, list[int | None]], ends: list[int], end_id: int, template: str
) -> SlotPlan:
    """Fill in a `SlotPlan`: what follows from the slots, the end token and the agreement."""
    predictable = agreement.slot_start + (END in slots)
    return SlotPlan(
        slot_start=agreement.slot_start,
        slot_tokens=list(slots),
        slot_sources=list(slots.values()),
        end_token_id=end_id,
        end_sources=ends,
        predictable_vocab_size=predictable,
        masked_token_ids=agreement.masked_token_ids,
        eos_token_ids=list(dict.fromkeys([end_id, *(end for end in ends if end < agreement.slot_start)])),
        chat_template=template,
    )
