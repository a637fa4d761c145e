"""The model for lm-evaluation-harness: what it asks, what it does when things do not fit, and what it keeps."""

from __future__ import annotations

import pytest
import torch
from evaluation_world import QUESTIONS, TEMPLATES, make_models
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from ultrafuser.errors import UserError
from ultrafuser.evaluate.kept import KeptAnswers
from ultrafuser.evaluate.lm import UltraFuserLM
from ultrafuser.evaluate.room import LEFT_OUT
from ultrafuser.tokens.encode import encode_prompt
from ultrafuser.tokens.pieces import read_pieces


def ask(prompt: str, tokens: int = 12, **settings: object) -> Instance:
    return Instance("generate_until", {}, (prompt, {"until": [], "do_sample": False, "max_gen_toks": tokens, **settings}), 0)


def messages(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def opened(folder, **options) -> UltraFuserLM:
    return UltraFuserLM(str(folder), device="cpu", **({"batch_size": 4} | options))


@pytest.fixture(scope="module")
def lm(trio):
    return opened(trio["fused"])


@pytest.mark.parametrize("adds_bos", [False, True])
def test_fused_prompts_are_those_of_training(trio, tmp_path, adds_bos):
    """A beginning token that the base tokenizer adds would stand before the slots, where no training had one."""
    folder = make_models(tmp_path, adds_bos=True)["fused"] if adds_bos else trio["fused"]
    lm = opened(folder)
    pieces = read_pieces(lm.tokenizer)
    chats = [lm.apply_chat_template(messages(question)) for question in QUESTIONS]
    expected = [encode_prompt(lm.tokenizer, pieces, messages(question)) for question in QUESTIONS]
    assert [lm.tok_encode(chat) for chat in chats] == expected
    ids, mask = lm.tok_batch_encode(chats)
    assert [row[seen.bool()].tolist() for row, seen in zip(ids, mask, strict=True)] == expected
    assert lm.prompt_note() is None
    plain = HFLM(str(folder), device="cpu", add_bos_token=False)  # what we tell users of the harness's own model
    assert [plain.tok_encode(chat) for chat in chats] == expected


def test_note_on_added_beginning(tmp_path):
    """The harness lets a plain model's tokenizer put a beginning token before the template's text; that must not go unsaid."""
    places = make_models(tmp_path, adds_bos=True)
    assert "'<s>' in front" in str(opened(places["text"]).prompt_note())
    assert opened(places["code"]).prompt_note() is None  # its template writes the token itself


@pytest.mark.parametrize("name", [*TEMPLATES, "fused"])
def test_answers_are_the_harness_own(trio, name):
    """Asking each prompt once, from a store, must give every request its own answer, in order, as the plain ``hf`` model does."""
    lm, plain = opened(trio[name]), HFLM(str(trio[name]), device="cpu", batch_size=4)
    requests = [ask(lm.apply_chat_template(messages(question)), tokens) for question in QUESTIONS for tokens in (3, 12)]
    requests += [ask(requests[0].args[0], 12, until=["e"])]
    answers = lm.generate_until(requests)
    assert answers == plain.generate_until([Instance("generate_until", {}, one.args, 0) for one in requests])
    assert len(set(answers)) > 3


def test_likelihoods_against_a_plain_forward(trio, lm):
    """One unpadded forward pass per request: catches sums over the wrong tokens and answers that were swapped."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(trio["fused"]), AutoTokenizer.from_pretrained(trio["fused"])
    pairs = [(lm.apply_chat_template(messages(question)), end) for question in QUESTIONS for end in (" 42", " the lazy dog", "A")]
    answers = lm.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in pairs])
    for (prompt, end), (value, greedy) in zip(pairs, answers, strict=True):
        start, whole = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, prompt + end))
        with torch.inference_mode():
            logits = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        steps = range(len(start), len(whole))
        assert value == pytest.approx(sum(float(logits[at - 1, whole[at]]) for at in steps), abs=1e-3)
        assert greedy == all(int(logits[at - 1].argmax()) == whole[at] for at in steps)


def test_nothing_is_asked_twice(trio, tmp_path, monkeypatch):
    """A second run with the same store may not run the model at all; another model or another limit may not use its answers."""
    prompts = [ask(question) for question in QUESTIONS]
    pairs = [Instance("loglikelihood", {}, (question, " 42"), 0) for question in QUESTIONS]
    first = opened(trio["code"], kept=KeptAnswers(tmp_path / "kept"), identity="code")
    answers, values = first.generate_until(prompts), first.loglikelihood(pairs)
    again = opened(trio["code"], kept=KeptAnswers(tmp_path / "kept"), identity="code")
    other = opened(trio["math"], kept=KeptAnswers(tmp_path / "kept"), identity="math")
    expected = opened(trio["math"]).generate_until(prompts)
    assert other.generate_until(prompts) == expected != answers
    monkeypatch.setattr(HFLM, "_model_generate", None)
    monkeypatch.setattr(HFLM, "_model_call", None)
    assert again.generate_until(prompts) == answers and again.loglikelihood(pairs) == values
    with pytest.raises(TypeError, match="not callable"):
        again.generate_until([ask(QUESTIONS[0], 13)])


def test_long_prompts_are_never_cut(trio, monkeypatch):
    """Room for nothing: not asked. Little room: a shorter answer. The harness would cut the prompt's beginning in both cases."""
    lm = opened(trio["code"], max_length=64, batch_size=8)
    lengths, limits = [], []
    generate = HFLM._model_generate

    def watched(self, context, max_length, stop, **settings):
        lengths.extend((context != self.tokenizer.pad_token_id).sum(1).tolist())
        limits.append(max_length)
        return generate(self, context, max_length, stop, **settings)

    monkeypatch.setattr(HFLM, "_model_generate", watched)
    tokens = [3, 40, 59, 63, 64, 90]
    prompts = ["<s>" + "Z" * (count - 1) for count in tokens]
    answers = lm.generate_until([ask(prompt, 20) for prompt in prompts])
    fitting = [count for count in tokens if count < 64]
    assert sorted(lengths) == sorted(fitting) and max(limits) <= 64
    assert [not answer for answer, count in zip(answers, tokens, strict=True) if count >= 64] == [True] * 2
    assert lm.room.notes() == [
        "2 of 6 prompts were not asked and count as wrong: the longest has 90 tokens, the model's context 64",
        "2 of 6 answers had less room than the task allows, in a context of 64 tokens",
        "at least 2 of 6 answers were cut off at 20 tokens",
    ]
    values = lm.loglikelihood([Instance("loglikelihood", {}, (prompt, "Z"), 0) for prompt in prompts])
    assert [value == LEFT_OUT for value in values] == [count + 1 > 65 for count in tokens]


def test_notes_count_requests_on_both_sides(lm):
    """A prompt that a task asks twice is two of its requests: "1 of 2" where both were cut off is half of the truth."""
    lm.start("options")
    lm.generate_until([ask("Z", 5), ask("Z", 5), ask("ZZ", 5)])
    for prompt in ("Z", "ZZ"):
        lm.room.answered((prompt, {"max_gen_toks": 5}), 5)
    assert lm.room.notes() == ["at least 3 of 3 answers were cut off at 5 tokens"]
    lm.start("options")
    lm.loglikelihood([Instance("loglikelihood", {}, ("ZZ", option), 0) for option in ("", "A", "")])
    assert lm.room.notes()[0].startswith("2 of 3 options add no token")


def test_answers_that_were_cut_off_are_told(lm):
    """An answer that fills what it may have is no whole answer; one that ended earlier is not counted."""
    lm.start("answers")
    ended = [len(lm.tokenizer(text, add_special_tokens=False).input_ids) < 5 for text in lm.generate_until([ask("Z", 5)])]
    assert lm.room.notes() == ([] if ended[0] else ["at least 1 of 1 answers were cut off at 5 tokens"])
    lm.room.cut_off.clear()
    for tokens in (4, 5):
        lm.room.answered(("Z", {"max_gen_toks": 5}), tokens)
        assert bool(lm.room.cut_off) == (tokens == 5)
    lm.room.answered(None, 5)  # one that was not asked


def test_thoughts_are_no_part_of_an_answer(lm, monkeypatch):
    """A judge must not read thoughts, nor the model its own in the next turn."""
    monkeypatch.setattr(lm, "generate_until", lambda requests: ["<think>Hm.</think>\n\nYes.", "<think>Hm"])
    assert lm.answer([[{"role": "user", "content": "Z"}]] * 2, 5) == ["Yes.", ""]


def test_option_without_tokens_counts_as_wrong(lm):
    """A word tokenizer may know no word of an option: the harness stops there, and with it the task."""
    lm.start("options")
    values = lm.loglikelihood([Instance("loglikelihood", {}, ("ZZ", option), 0) for option in ("A", "")])
    assert values[0] != LEFT_OUT and values[1] == LEFT_OUT
    assert lm.room.unwritable == {("ZZ", "")} and not lm.room.left_out
    assert len(lm.room.notes()) == 1 and lm.room.notes()[0].startswith("1 of 2 options add no token to the prompt")


def test_option_that_was_not_asked_never_wins(lm):
    """A long option has a log-likelihood of some hundreds below 0: one that could not be asked must still be less likely."""
    lm.start("options")
    (long, _), (none, _) = lm.loglikelihood([Instance("loglikelihood", {}, ("Z", option), 0) for option in (" lazy dog" * 9, "")])
    assert float("-inf") < none < long < -100


def test_batch_of_likelihoods_is_bounded(lm, monkeypatch):
    """The logits of a batch may not need more memory than there is: a CPU's process would be killed, which nobody can catch."""
    sizes, call = [], HFLM._model_call
    monkeypatch.setattr(HFLM, "_model_call", lambda self, inps, **rest: sizes.append(inps.shape) or call(self, inps, **rest))
    monkeypatch.setattr("ultrafuser.evaluate.lm.LOGITS", 2 * 70 * lm.vocab_size)
    prompts = ["Z" * (39 - place) + "A" for place in range(5)]
    lm.loglikelihood([Instance("loglikelihood", {}, (prompt, " 42"), 0) for prompt in prompts])
    assert max(rows for rows, _ in sizes) in (2, 3) and all(rows * width <= 140 for rows, width in sizes)
    assert lm.batch_size == 4


def test_batch_is_halved_when_memory_does_not_suffice(trio, monkeypatch):
    """Answers that came before the memory ran out count; with a batch of one it is a mistake told in one line."""
    lm, sizes = opened(trio["code"], batch_size=8), []
    expected = opened(trio["code"]).generate_until([ask(question) for question in QUESTIONS])
    generate = HFLM._model_generate

    def tight(self, context, **settings):
        sizes.append(len(context))
        if len(context) > largest:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(self, context, **settings)

    monkeypatch.setattr(HFLM, "_model_generate", tight)
    largest = 2
    assert lm.generate_until([ask(question) for question in QUESTIONS]) == expected
    assert sizes == [5, 4, 2, 2, 1] and lm.batch_size == 2
    largest = 0
    with pytest.raises(UserError, match="memory does not suffice for one prompt"):
        lm.generate_until([ask("another")])


def test_model_without_template(trio, tmp_path):
    """One line instead of a traceback out of Jinja; a template of ours helps."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(trio["text"]), AutoTokenizer.from_pretrained(trio["text"])
    tokenizer.chat_template = None
    lm = UltraFuserLM(model, tokenizer=tokenizer)
    with pytest.raises(UserError, match="no chat template"):
        lm.answer([messages("Sum?")], 4)
    assert UltraFuserLM(model, tokenizer=tokenizer, template="alpaca").apply_chat_template(messages("Sum?")).count("###") == 2


def test_no_model_is_one_line(tmp_path):
    """Through the harness's own command line a model that is not there, or not named, must not end in a traceback."""
    with pytest.raises(UserError, match="give the model: pretrained=DIR"):
        UltraFuserLM()
    with pytest.raises(UserError, match=r"none/model: cannot be loaded \("):
        UltraFuserLM(str(tmp_path / "none" / "model"))
