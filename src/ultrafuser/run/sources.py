"""The specialists of a recipe as they will be fused, known before anything is trained or written.

Finished ones are opened and compared, those from scratch outlined: both have a configuration, a tokenizer and a template, so
whatever keeps them from being fused, trained or judged is found here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from ultrafuser.errors import Attempts, UserError
from ultrafuser.io import user_path
from ultrafuser.model.adapters import is_adapter, read_adapter_config
from ultrafuser.model.digest import model_digest
from ultrafuser.model.fuse import choose_dtype
from ultrafuser.model.layout import fused_config
from ultrafuser.model.lineup import OWN, LineUp, line_up, resolve_templates
from ultrafuser.model.quantise import require_quantiser
from ultrafuser.model.sources import Specialist, open_specialist
from ultrafuser.run.materials import NOTHING, Materials, at_hand, by_domain, gather, token_counts
from ultrafuser.run.scratch import outline
from ultrafuser.schema import Recipe


@dataclass(frozen=True)
class Sources:
    """Two to eight specialists, the Jinja text each is fused with (None: its own template), and how they fit together."""

    specialists: Sequence[Specialist]
    templates: Sequence[str | None]
    lineup: LineUp

    def fused_config(self, recipe: Recipe) -> Any:
        """The configuration that the fused model will have."""
        dtype = choose_dtype(self.specialists, recipe.fuse.dtype)
        return fused_config(self.specialists, self.lineup.plan, gate_hidden_size=recipe.fuse.gate_hidden_size, dtype=dtype)

    def longest(self, recipe: Recipe) -> int:
        """The most tokens that an example has, of training as of what is held out."""
        return min(recipe.data.max_length, self.fused_config(recipe).max_position_embeddings)

    def digests(self) -> dict[str, str]:
        """Digests of what the fused model is made of, by what it is; those from scratch are made of recipe and data alone."""
        found = {f"specialist {one.name}": _digest(one) for one in self.specialists if one.folder != Path()}
        return found | {"chat templates": sha256(json.dumps(self.templates).encode()).hexdigest()[:16]}


def look(recipe: Recipe, attempts: Attempts, *, fetch: bool) -> tuple[Materials | None, Sources | None]:
    """What ``recipe`` works on and fuses, None for what would have to be fetched, which is done only if ``fetch``.

    All mistakes are told at once, with those of ``attempts`` before; where there are any nothing is fetched. Raises `UserError`.
    """
    materials = sources = None
    if at_hand(recipe) or (fetch and not attempts.mistakes):
        materials = attempts(lambda: gather(recipe))
    known = materials is not None if recipe.pretrain else all(specialist_at_hand(one.path or "") for one in recipe.specialists)
    if known or (fetch and not attempts.mistakes):
        sources = attempts(lambda: open_sources(recipe, materials or NOTHING))
    attempts.conclude(recipe.name)
    return materials, sources


def open_sources(recipe: Recipe, materials: Materials) -> Sources:
    """Open or outline the specialists of ``recipe``, and see that they can be fused, trained and judged on ``materials``.

    Specialists of the hub are fetched. Raises `UserError` for anything that does not fit.
    """
    require_quantiser(recipe.train.load_in)
    if recipe.pretrain:
        specialists = outline(recipe, materials.train)
    else:
        specialists = _open_all(recipe)
    templates = resolve_templates(template_names(recipe), len(specialists))
    sources = Sources(specialists, templates, line_up(specialists, templates))
    _require_fitting(recipe, materials, sources)
    return sources


def _open_all(recipe: Recipe) -> list[Specialist]:
    """All specialists; the mistakes of all of them are told at once."""
    attempts = Attempts()
    opened = [attempts(partial(open_specialist, one.path or "", one.name)) for one in recipe.specialists]
    attempts.conclude(recipe.name)
    return [one for one in opened if one is not None]


def _require_fitting(recipe: Recipe, materials: Materials, sources: Sources) -> None:
    """The fused template is at least as long as every specialist's, so what fits with it fits with all."""
    longest, positions = sources.longest(recipe), sources.fused_config(recipe).max_position_embeddings
    limit = f"max_length {longest}; raise it or" if longest < positions else f"the models' {positions} positions;"
    for what, conversations in (("training", materials.train), ("held-out", materials.heldout)):
        for domain, group in by_domain(conversations).items():
            if not any(token_counts(group, sources.lineup.tokenizer, longest)):
                its = f"its only {what} conversation is" if len(group) == 1 else f"all {len(group)} {what} conversations are"
                raise UserError(f"domain '{domain}': {its} longer than {limit} add shorter ones")


def template_names(recipe: Recipe) -> list[str] | None:
    """The templates to fuse with, as `fuse` takes them; specialists from scratch already have theirs in their tokenizers."""
    if recipe.fuse.template:
        return [recipe.fuse.template]
    given = [None if recipe.pretrain else one.template for one in recipe.specialists]
    return [template or OWN for template in given] if any(given) else None


def specialist_at_hand(path: str) -> bool:
    """Can this specialist be opened without fetching anything: a local directory, of an adapter its base too?"""
    folder = user_path(path)
    if not folder.is_dir() or not is_adapter(folder):
        return folder.is_dir()
    base = str(read_adapter_config(folder)["base_model_name_or_path"])
    return (folder / base).is_dir() or user_path(base).is_dir()


def _digest(one: Specialist) -> str:
    folders = [one.folder, *([one.adapter] if one.adapter else [])]
    return " + ".join(model_digest(folder) for folder in folders)
