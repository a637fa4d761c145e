"""transformers' own model, generation, training and configuration tests, run on two kinds of fused model.

Issue 2: "The generation tests that transformers ships for its own models should pass on ours." The testers below stand to
the fused model as the library's ``CausalLMModelTester`` stands to its decoders. Without a checkout the module is skipped:

    git clone --depth 1 --branch v5.24.0 https://github.com/huggingface/transformers DIR;  pip install parameterized
    ULTRAFUSER_TRANSFORMERS_TESTS=DIR pytest -m slow tests/model/test_transformers_suite.py

With ``RUN_SLOW=1`` the tests run that the library itself calls slow. Nothing is left out on our side but what
`EXPECTED_TO_FAIL` names, where an entry that passes fails the run.
"""

from __future__ import annotations

import json
import sys
import unittest
from unittest import mock

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.auto import modeling_auto
from upstream import checkout, expected_to_fail

from ultrafuser.model.configuration_ultrafuser import UltraFuserConfig
from ultrafuser.model.modeling_ultrafuser import UltraFuserForCausalLM, UltraFuserModel

ROOT = checkout()
if isinstance(ROOT, str):
    pytest.skip(ROOT, allow_module_level=True)
pytest.importorskip("parameterized", reason="the library's own tests need parameterized")
sys.path.insert(0, str(ROOT))

from tests.generation.test_utils import GenerationTesterMixin  # noqa: E402
from tests.test_configuration_common import ConfigTester  # noqa: E402
from tests.test_modeling_common import ModelTesterMixin, ids_tensor  # noqa: E402
from tests.test_training_mixin import TrainingTesterMixin  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("always::FutureWarning")]  # which some of them wait for

ONE_MASK = "one mask for all cannot say what each specialist sees of the slots"
PACKED = "packed sequences are refused where templates differ: positions count what each specialist sees"
EXPECTED_TO_FAIL: dict[str, dict[str, str]] = {
    "one template": {},
    "unlike templates": {
        "test_custom_4d_attention_mask": ONE_MASK,
        "test_eager_padding_matches_padding_free_with_position_ids": PACKED,
        "test_sdpa_padding_matches_padding_free_with_position_ids": PACKED,
    },
}


class FusedModelTester:
    """Configuration and inputs of a tiny model of two fused Llamas, under the names that the library's tests read."""

    config_class = UltraFuserConfig
    base_model_class = UltraFuserModel
    causal_lm_class = UltraFuserForCausalLM
    is_training = True
    batch_size, seq_length = 5, 7
    vocab_size, hidden_size, num_hidden_layers, num_attention_heads = 99, 32, 2, 4  # width of a specialist, layers of all
    slots: dict[str, object] = {}  # noqa: RUF012

    def get_config(self) -> UltraFuserConfig:
        own = LlamaConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=37,
            num_hidden_layers=1,
            num_attention_heads=self.num_attention_heads,
            num_key_value_heads=2,
            max_position_embeddings=512,
        )
        as_read = json.loads(own.to_json_string(use_diff=False))
        special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        return UltraFuserConfig(
            specialists=[as_read] * 2, gate_hidden_size=16, vocab_size=self.vocab_size, **special, **self.slots
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[UltraFuserConfig, dict[str, torch.Tensor]]:
        ids = ids_tensor([self.batch_size, self.seq_length], self.vocab_size)
        return self.get_config(), {"input_ids": ids, "attention_mask": torch.tril(torch.ones_like(ids))}


class SlotModelTester(FusedModelTester):
    """The same with four slots, three of them hidden from one of the specialists; every row has all of them."""

    slots = {"slot_start": 95, "slot_visibility": [[1, 0], [0, 1], [1, 1], [1, 0]]}  # noqa: RUF012

    def prepare_config_and_inputs_for_common(self) -> tuple[UltraFuserConfig, dict[str, torch.Tensor]]:
        config, inputs = super().prepare_config_and_inputs_for_common()
        inputs["input_ids"][:, :3] = torch.tensor([97, 95, 96])  # the first is seen by both: before it nothing has a state
        inputs["input_ids"][:, -1] = 98
        return config, inputs


class FusedModelTests(ModelTesterMixin, GenerationTesterMixin, TrainingTesterMixin):
    """All mixins that mean anything for a decoder of text; no test is overridden."""

    model_tester_class = FusedModelTester
    all_model_classes = (UltraFuserModel, UltraFuserForCausalLM)
    _torch_compile_train_cls = UltraFuserForCausalLM

    def setUp(self) -> None:
        super().setUp()
        self.model_tester = self.model_tester_class()
        self.config_tester = ConfigTester(
            self, config_class=UltraFuserConfig, specialists=self.model_tester.get_config().specialists
        )
        for names, model in (
            (modeling_auto.MODEL_MAPPING_NAMES, UltraFuserModel),
            (modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, UltraFuserForCausalLM),
        ):  # where the library's tests look up which inputs and labels a class takes
            known = mock.patch.dict(names, {UltraFuserConfig.model_type: model.__name__})
            known.start()
            self.addCleanup(known.stop)

    def test_config(self) -> None:
        self.config_tester.run_common_tests()

    def _check_hidden_states_for_generate(
        self, batch_size, hidden_states, prompt_length, output_length, config, use_cache=False
    ) -> None:
        """A layer's state is as wide as its specialist; only the last, mixed one has the width of the whole model."""
        widths = [self.model_tester.hidden_size] * config.num_hidden_layers + [config.hidden_size]
        self.assertIsInstance(hidden_states, tuple)
        self.assertEqual(len(hidden_states), output_length - prompt_length)
        for step, states in enumerate(hidden_states):
            self.assertIsInstance(states, tuple)
            queries = 1 if use_cache and step else prompt_length + step
            self.assertEqual([tuple(state.shape) for state in states], [(batch_size, queries, width) for width in widths])


@expected_to_fail(EXPECTED_TO_FAIL["one template"])
class OneTemplateTest(FusedModelTests, unittest.TestCase):
    """Two specialists with one common template: an ordinary decoder as far as the library can see."""


@expected_to_fail(EXPECTED_TO_FAIL["unlike templates"])
class UnlikeTemplatesTest(FusedModelTests, unittest.TestCase):
    """Two specialists with templates of their own: masks and positions per specialist."""

    model_tester_class = SlotModelTester
