"""How large a recipe's models are: parameters counted on the meta device, and the memory and disk they take.

Memory counts weights, gradients and AdamW's two moments; activations come on top (they depend on micro-batch and length, and
gradient checkpointing makes them small).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from ultrafuser.model.check import TRAINED_BYTES
from ultrafuser.model.configuration_ultrafuser import UltraFuserConfig
from ultrafuser.model.layout import GATE_PREFIX
from ultrafuser.model.modeling_ultrafuser import UltraFuserForCausalLM
from ultrafuser.model.sources import EMBEDDING, HEAD, expected_shapes
from ultrafuser.run.settings import train_settings
from ultrafuser.schema import Recipe, Training
from ultrafuser.train.load import computes_in_bf16
from ultrafuser.train.moves import ADAPTED_LAYERS, moving, set_in_motion
from ultrafuser.train.stage import Stage
from ultrafuser.train.trainer import CHECKPOINT_BYTES

QUANTISED_BYTES = {"4bit": 0.5 + 4 / 64, "8bit": 1.0}  # NF4 has a float32 constant for every 64 weights, int8 one a row
QUANTISED = re.compile(ADAPTED_LAYERS + r"\.weight")  # the gate, the two tables and the norms stay whole


class Needs(NamedTuple):
    """What a stage trains, in parameters, and the memory its weights, gradients and moments take, in bytes."""

    parameters: int
    memory: float


@dataclass(frozen=True)
class Sizes:
    """Sizes of a recipe's models.

    Args:
        recipe: what is run.
        fused: configuration of the fused model.
        weight_bytes: of one weight of it on disk; the gate's are float32.
        own_weight_bytes: of one weight of each specialist on disk.
        merged: places of the specialists that are merged with an adapter, and so written anew.
    """

    recipe: Recipe
    fused: UltraFuserConfig
    weight_bytes: int
    own_weight_bytes: Sequence[int]
    merged: Sequence[int] = ()

    def specialist(self, j: int) -> int:
        """Parameters of one specialist."""
        return sum(math.prod(shape) for shape in self._shapes(j).values())

    def total(self) -> tuple[int, int]:
        """Parameters of the fused model, and of its gate."""
        counts = {name: parameter.numel() for name, parameter in self._on_meta().named_parameters()}
        return sum(counts.values()), sum(count for name, count in counts.items() if name.startswith(GATE_PREFIX))

    def needs(self, stage: Stage) -> Needs:
        """What a stage trains and needs on each device."""
        model, settings = set_in_motion(self._on_meta(), stage), train_settings(self.recipe)
        whole = 2 if stage.moves != "all" and computes_in_bf16(settings) else 4
        memory = 0.0
        for name, parameter in model.named_parameters():
            quantised = QUANTISED_BYTES.get(settings.load_in or "", whole) if QUANTISED.fullmatch(name) else whole
            memory += parameter.numel() * (TRAINED_BYTES if parameter.requires_grad else quantised)
        return Needs(sum(parameter.numel() for parameter in moving(model).values()), memory)

    def kept(self) -> int:
        """Bytes of all models' weights at the end: fused, after each stage, and those it is compared with."""
        total, gate = self.total()
        stages = [stage for stage in self.recipe.train.stages if stage.steps]
        whole = 1 + sum(stage.moves != "gate" for stage in stages)  # a gate stage writes the gate only, all else is linked
        return (total - gate) * self.weight_bytes * whole + gate * 4 * (1 + len(stages)) + self._compared()

    def passing(self) -> int:
        """Bytes of the checkpoints that one training has at most; they go when it is done."""
        counts = [self._checkpoints(stage, self.needs(stage).parameters) for stage in self.recipe.train.stages if stage.steps]
        if self.recipe.pretrain:
            trainings = (self.recipe.pretrain.base, self.recipe.pretrain.specialist)
            counts += [self._checkpoints(one, self.specialist(0)) for one in trainings]
        return max(counts, default=0)

    def _checkpoints(self, training: Training, parameters: int) -> int:
        """Bytes of a training's checkpoints: those that are kept, and the next while it is written."""
        saved = math.ceil(training.steps / self.recipe.train.save_every)
        return min(saved, self.recipe.train.keep_checkpoints + 1) * parameters * CHECKPOINT_BYTES

    def _compared(self) -> int:
        """Bytes of base, specialists and average merge, as far as the run writes them."""
        own = [self.specialist(j) * size for j, size in enumerate(self.own_weight_bytes)]
        averaged = self.recipe.evaluation.baselines and all(self._body(j) == self._body(0) for j in range(len(own)))
        average = self.specialist(0) * max(self.own_weight_bytes) if averaged else 0
        if self.recipe.pretrain:
            return own[0] + sum(own) + average
        return average + (sum(own[j] for j in self.merged) if self.recipe.evaluation.baselines else 0)

    def _body(self, j: int) -> dict[str, tuple[int, ...]]:
        return {name: shape for name, shape in self._shapes(j).items() if name not in (EMBEDDING, HEAD)}

    def _shapes(self, j: int) -> dict[str, tuple[int, ...]]:
        return expected_shapes(self.fused.specialist_configs()[j])

    def _on_meta(self) -> Any:
        with torch.device("meta"):
            return UltraFuserForCausalLM(self.fused)
