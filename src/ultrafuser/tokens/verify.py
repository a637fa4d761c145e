"""Compare pieces and contents, tokenised apart, with what the specialist's own template renders (`ultrafuser check`)."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

from ultrafuser.tokens.borders import encode
from ultrafuser.tokens.encode import parts
from ultrafuser.tokens.pieces import TemplatePieces
from ultrafuser.tokens.rendering import subject, template_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

QUESTIONS = ("What is 17 times 3?", "Sort the list", "(1 + 2) * 3 =", "def f(x):\n    return x + 1", "Où est le café ?")
ANSWERS = ("It is 51.", "sorted(list)")


def probe_conversations() -> list[list[dict[str, str]]]:
    """Prompts of one to three turns, with and without a system message."""
    prompts = [[{"role": "user", "content": question}] for question in QUESTIONS]
    chat: list[dict[str, str]] = []
    for prompt, answer in zip(prompts, ANSWERS, strict=False):
        chat += [*prompt, {"role": "assistant", "content": answer}]
    chat += prompts[len(ANSWERS)]
    system = [{"role": "system", "content": "Answer in one line."}]
    return [*prompts, chat[:3], chat, system + prompts[0], system + chat[:3]]


def verify_pieces(
    tokenizer: PreTrainedTokenizerBase, pieces: TemplatePieces, chat_template: str | None = None, name: str | None = None
) -> list[str]:
    """One sentence per border at which the specialist's own template gives other tokens; empty when none does.

    ``chat_template`` is Jinja text, the tokenizer's own if None. Probe conversations on which the template fails are left
    out: `TemplatePieces.notes` says so already.
    """
    template = template_text(tokenizer, chat_template, name)
    conversations = probe_conversations()
    found: dict[str, tuple[str, int]] = {}  # border -> (first example, count)
    for messages in conversations:
        try:
            text = tokenizer.apply_chat_template(messages, chat_template=template, add_generation_prompt=True, tokenize=False)
        except Exception:  # a template may raise anything on a role or an order that it does not know
            continue
        labelled = [*parts(tokenizer, pieces, messages), ("answer", pieces.answer)]
        difference = _first_difference(tokenizer, labelled, encode(tokenizer, str(text)))
        if difference is not None:
            border, example = difference
            example, count = found.get(border, (example, 0))
            found[border] = example, count + 1
    return [
        f"{subject(tokenizer, name)}: {border}, {example} (in {count} of {len(conversations)} probes)"
        for border, (example, count) in found.items()
    ]


def _first_difference(
    tokenizer: PreTrainedTokenizerBase, labelled: list[tuple[str, list[int]]], own: list[int]
) -> tuple[str, str] | None:
    """(where, the differing tokens) of the first place at which ``own`` differs from the labelled parts; None if equal."""
    ours = [i for _, ids in labelled for i in ids]
    if ours == own:
        return None
    at = next((i for i, (a, b) in enumerate(zip(ours, own, strict=False)) if a != b), min(len(ours), len(own)))
    written = [(label, ids) for label, ids in labelled if ids]
    ends = list(accumulate(len(ids) for _, ids in written))
    part = min(bisect_right(ends, at), len(written) - 1)  # the part that holds token `at`
    following = written[part + 1][0] if part + 1 < len(written) else "the end"
    here, there = (tokenizer.convert_ids_to_tokens(ids[at : at + 3]) for ids in (ours, own))
    return f"at '{written[part][0]}' (before '{following}')", f"its own template gives {there} where the pieces give {here}"
