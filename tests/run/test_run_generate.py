"""One answer, word by word: what a model ships, or is given, may not break it."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from tiny import tiny_specialist
from ultrafuser.errors import UserError
from ultrafuser.run.generate import Decoding, answer, say

GREEDY = Decoding(6, temperature=0)


@pytest.fixture
def one(tmp_path):
    """A model and its tokenizer."""
    folder = tiny_specialist(tmp_path / "one", template="chatml")
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def test_settings_for_another_use_are_neither_told_nor_fatal(one, caplog):
    """A model that ships beams, a length and sampling must answer word by word, greedily, without transformers' warnings."""
    model, tokenizer = one
    messages = [{"role": "user", "content": "What is 12 and 30?"}]
    plain = answer(model, tokenizer, messages, GREEDY, lambda text: None)
    beams = {"num_beams": 4, "num_return_sequences": 2, "early_stopping": True, "stop_strings": ["never said"]}
    for name, value in (beams | {"max_length": 4096, "do_sample": True, "temperature": 5.0, "top_p": 0.9}).items():
        setattr(model.generation_config, name, value)
    caplog.clear()
    assert answer(model, tokenizer, messages, GREEDY, lambda text: None) == plain
    assert caplog.messages == []


def test_settings_that_cannot_be_carried_out(one):
    """Sampling at a temperature of 0, a usual slip in a shipped file, must be one line that names the file, and no traceback."""
    model, tokenizer = one
    model.generation_config.do_sample, model.generation_config.temperature = True, 0.0
    with pytest.raises(UserError, match=r"its generation settings cannot be carried out \(.*\); correct its generation_config"):
        answer(model, tokenizer, [{"role": "user", "content": "What?"}], Decoding(4), lambda text: None)


def test_nothing_to_be_continued(one):
    """An empty prompt, where no template puts anything around it, must be one line and no traceback of torch."""
    model, tokenizer = one
    assert answer(model, tokenizer, [{"role": "user", "content": ""}], GREEDY, lambda text: None).text
    tokenizer.chat_template = None
    with pytest.raises(UserError, match=r"^the prompt is empty, and nothing stands before it; give some text"):
        answer(model, tokenizer, [{"role": "user", "content": ""}], GREEDY, lambda text: None)


def test_words_that_the_vocabulary_lacks_are_told(one, capsys):
    """A model of a small world answers nonsense to a greeting, and nobody says that it could not read it."""
    model, tokenizer = one
    say(model, tokenizer, [{"role": "user", "content": "What is 12?"}], GREEDY)
    assert "vocabulary" not in capsys.readouterr().err
    words = Tokenizer(WordLevel({"<unk>": 0, "what": 1, "is": 2, "<s>": 3}, "<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    small = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<s>", pad_token="<s>")
    say(model, small, [{"role": "user", "content": "hello what is hello this"}], GREEDY)
    assert "note: this model's vocabulary has no 'hello', 'this': read as unknown words" in capsys.readouterr().err
