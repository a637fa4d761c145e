"""How the specialists' vocabularies and chat templates fit together: the part of fusing that is about tokens."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ultrafuser.errors import UserError
from ultrafuser.model.sources import Specialist
from ultrafuser.tokens.pieces import TemplatePieces, read_pieces
from ultrafuser.tokens.slots import SlotPlan, build_fused_tokenizer, plan_slots
from ultrafuser.tokens.templates import load_template
from ultrafuser.tokens.vocabulary import VocabularyAgreement, agree

OWN = "own"  # in place of a template: the specialist's own


@dataclass(frozen=True)
class LineUp:
    """How the specialists' vocabularies and templates fit together."""

    pieces: dict[str, TemplatePieces]
    agreement: VocabularyAgreement
    plan: SlotPlan
    tokenizer: Any  # the fused one

    @property
    def template_notes(self) -> list[str]:
        """What the templates cannot do or what was changed of them, each with its specialist's name."""
        own = [f"{name}: {note}" for name, pieces in self.pieces.items() for note in pieces.notes]
        return [*own, *self.plan.notes]


def line_up(specialists: Sequence[Specialist], templates: Sequence[str | None]) -> LineUp:
    """Compare vocabularies, read templates, plan the slot tokens. Raises `UserError` for what does not fit."""
    tokenizers = {one.name: one.tokenizer for one in specialists}
    agreement = agree(tokenizers, {one.name: one.rows for one in specialists})
    pieces = {
        one.name: read_pieces(one.tokenizer, chat_template=template, name=one.name)
        for one, template in zip(specialists, templates, strict=True)
    }
    base = copy.deepcopy(tokenizers[agreement.base])
    base.chat_template = dict(zip(tokenizers, templates, strict=True))[agreement.base] or base.chat_template
    plan = plan_slots(pieces, agreement, base)
    return LineUp(pieces, agreement, plan, build_fused_tokenizer(base, plan))


def resolve_templates(templates: Sequence[str] | None, count: int) -> list[str | None]:
    """One Jinja text per specialist, or None for its own (``own``). Raises `UserError` for a wrong number or unknown template."""
    if not templates:
        return [None] * count
    if len(templates) not in (1, count):
        raise UserError(f"{len(templates)} chat templates for {count} specialists; give one for all or one each")
    texts = [None if template == OWN else load_template(template) for template in templates]
    return [*texts] * (count // len(texts))
