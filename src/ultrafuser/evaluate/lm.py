"""A model for lm-evaluation-harness, fused or any other causal LM; registered there as ``ultrafuser`` (issue 3, "Engine").

It is the harness's own Hugging Face model, and asks the same tokens. What it adds:

- answers are kept (`kept.py`), the same prompt is asked once, and the batch is halved when memory does not suffice;
- prompts that are long for the context are never cut (`room.py`);
- one bar for a task; a name of a shipped template for models without one (``template=``).

Prompts are rendered by the model's own chat template: a fused model's holds slot tokens, so each specialist reads its own. The
harness then tokenises text with whatever the tokenizer adds by itself. For a fused model nothing may be added, and its prompts
are exactly those of training (`tokens.encode`). For other models some tokenizers add a beginning token that their template does
not write; it stays, as it does in the harness, and `prompt_note` says so.

Through the harness's own command line: ``python -m ultrafuser.evaluate run --model ultrafuser --model_args pretrained=DIR ..``.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ultrafuser.endpoints.thoughts import without_thoughts
from ultrafuser.errors import UserError, first_line
from ultrafuser.evaluate.kept import KeptAnswers, request_key
from ultrafuser.evaluate.room import LEFT_OUT, Room
from ultrafuser.model.decoding import end_tokens
from ultrafuser.model.load import free_memory, require_finite
from ultrafuser.tokens.encode import encode_prompt
from ultrafuser.tokens.pieces import read_pieces
from ultrafuser.tokens.templates import load_template

GENERATE, LIKELIHOOD = "generate_until", "loglikelihood"
LOGITS = 1 << 28  # of a batch of likelihoods: 1 GiB in float32
PROBE = [{"role": "user", "content": "What is the sum of 12 and 30?"}]


@register_model("ultrafuser")
class UltraFuserLM(HFLM):
    """The harness's ``hf`` model with the additions above.

    Args:
        pretrained: a directory or hub id, or a loaded model (then give its ``tokenizer`` too).
        template: a shipped chat template or a Jinja file in place of the tokenizer's own.
        kept: where answers are kept; None keeps them in memory only.
        identity: what distinguishes this model in ``kept``, such as its digest.
        options: those of the harness's ``hf`` model: ``batch_size``, ``dtype``, ``device``, ..

    Attributes:
        room: the prompts of the task that did not fit.
        title: what the bar is called; None shows none.

    Raises `UserError` where there is no model.
    """

    add_bos_token: bool | None
    batch_size_per_gpu: int | str

    def __init__(
        self,
        pretrained: Any = None,
        *,
        template: str | None = None,
        kept: KeptAnswers | None = None,
        identity: str = "",
        **options: Any,
    ) -> None:
        if pretrained is None:
            raise UserError("--model_args: give the model: pretrained=DIR, or a hub id")
        try:
            super().__init__(pretrained, **options)
        except OSError as error:
            raise UserError(f"{pretrained}: cannot be loaded ({first_line(error)})") from None
        require_finite(pretrained, self.model)
        end_tokens(self.model)  # refuses what cannot be one, before anything is asked
        if template is not None:
            self.tokenizer.chat_template = load_template(template)
        if self.config.model_type == "ultrafuser" and self.add_bos_token is None:
            self.add_bos_token = False
        self.kept = kept or KeptAnswers()
        self.identity = identity
        self.room = Room(self.max_length)
        self.title: str | None = None
        self.set_cache_hook(_Keeper(self))
        self.advance: Callable[[], None] = lambda: None

    def start(self, title: str) -> None:
        """Begin a task: its bar is called ``title``, and `room` tells of its prompts only."""
        self.title, self.room = title, Room(self.max_length)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The text of a conversation. Raises `UserError` when there is no chat template."""
        if self.tokenizer.chat_template is None:
            raise UserError("the model has no chat template; give one of ours or a Jinja file with the option 'template'")
        return str(super().apply_chat_template(chat_history, add_generation_prompt))

    def answer(self, conversations: Sequence[Sequence[Mapping[str, str]]], max_new_tokens: int) -> list[str]:
        """Answer conversations that end with a user turn, greedily, in at most ``max_new_tokens`` each; thoughts are left out."""
        settings = {"until": [], "do_sample": False, "max_gen_toks": max_new_tokens}
        prompts = [self.apply_chat_template([dict(message) for message in messages]) for messages in conversations]
        texts = self.generate_until([Instance(GENERATE, {}, (one, settings), 0) for one in prompts])
        return [without_thoughts(text).strip() for text in texts]

    def prompt_note(self) -> str | None:
        """A sentence about how the harness's prompts differ from those of our own training and chat, if they do."""
        harness = self.tok_encode(self.apply_chat_template(PROBE))
        try:
            ours = encode_prompt(self.tokenizer, read_pieces(self.tokenizer), PROBE)
        except UserError:  # a template that could not be fused, but can be evaluated
            return None
        if harness == ours:
            return None
        if harness[1:] == ours:
            return f"asked with {self.tok_decode(harness[:1], skip_special_tokens=False)!r} in front, which its tokenizer adds"
        return "its chat template's text is tokenised as a whole: some tokens around contents are joined"

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answers to ``requests`` in their order. Sampled ones are neither kept nor asked only once."""
        if any(request.args[1].get("do_sample") for request in requests):
            return list(super().generate_until(requests, disable_tqdm))
        fitted = [self._fit_generation(*request.args) for request in requests]
        answers = self._through_store(GENERATE, fitted, super().generate_until, "")
        for one, answer in zip(fitted, answers, strict=True):
            self.room.answered(one, len(self.tokenizer(answer, add_special_tokens=False).input_ids))
        return answers

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-likelihoods of continuations, and whether greedy decoding would give them."""
        pairs = [request.args for request in requests]
        lengths = [self._pair_lengths(*pair) for pair in pairs]
        fitted = [self.room.likelihood(pair[0], pair[1], length) for pair, length in zip(pairs, lengths, strict=True)]
        size = self.batch_size_per_gpu
        if isinstance(size, int):
            # The harness makes the logits of all positions of a batch at once.
            longest = min(max(map(sum, lengths)), self.max_length)
            self.batch_size_per_gpu = max(1, min(size, LOGITS // (longest * self.vocab_size)))
        try:
            answers = self._through_store(LIKELIHOOD, fitted, super().loglikelihood, LEFT_OUT)
        finally:
            self.batch_size_per_gpu = size
        return [(float(value), bool(greedy)) for value, greedy in answers]

    def _fit_generation(self, prompt: str, settings: dict[str, Any]) -> tuple[Any, ...] | None:
        wanted = normalize_gen_kwargs(settings, self.max_gen_toks)["max_gen_toks"]
        return self.room.generation(prompt, len(self.tok_encode(prompt)), wanted, settings)

    def _pair_lengths(self, prompt: str, continuation: str) -> tuple[int, int]:
        """How many tokens a prompt and its continuation have; an empty prompt is a beginning token."""
        if not prompt:
            return 1, len(self.tok_encode(continuation))
        first, second = self._encode_pair(prompt, continuation)
        return len(first), len(second)

    def _through_store(
        self, kind: str, fitted: Sequence[tuple[Any, ...] | None], ask: Callable[..., list[Any]], left_out: Any
    ) -> list[Any]:
        """Answers in the order of ``fitted``: kept ones, the others asked once each, ``left_out`` for those that do not fit."""
        keys = [None if one is None else request_key(self.identity, kind, one) for one in fitted]
        unique = {key: one for key, one in zip(keys, fitted, strict=True) if key is not None}
        answers = self.kept.find(unique)
        with self._bar(len(unique), len(answers)):
            while left := {key: one for key, one in unique.items() if key not in answers}:
                try:
                    found = ask([Instance(kind, {}, one, 0) for one in left.values()], disable_tqdm=self.title is not None)  # type: ignore[arg-type]
                    answers |= zip(left, found, strict=True)
                except torch.OutOfMemoryError:
                    self._halve_batch()
                    answers |= self.kept.find(left)
        return [left_out if key is None else answers[key] for key in keys]

    def _halve_batch(self) -> None:
        size = self.batch_size_per_gpu
        if not isinstance(size, int) or size == 1:
            raise UserError("the memory does not suffice for one prompt; use a larger device or fewer new tokens") from None
        self.batch_size_per_gpu = size // 2
        free_memory()

    @contextlib.contextmanager
    def _bar(self, total: int, done: int) -> Iterator[None]:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(
            *columns, console=Console(stderr=True), transient=True, disable=self.title is None or not sys.stderr.isatty()
        ) as progress:
            bar = progress.add_task(self.title or "", total=total, completed=done)
            self.advance = lambda: progress.advance(bar)
            yield


class _Keeper:
    """What the harness calls with each finished answer (its ``CacheHook``)."""

    def __init__(self, lm: UltraFuserLM) -> None:
        self.lm = lm

    def add_partial(self, kind: str, request: Sequence[Any], answer: Any) -> None:
        """Keep one answer."""
        self.lm.kept.keep(request_key(self.lm.identity, kind, request), answer)
        self.lm.advance()
