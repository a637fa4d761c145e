"""The prompts: one Jinja file each beside this one, and how a recipe's own take their place (issue 4, "What to build").

A template is looked for in this order: the domain's own directory (``domains.NAME.prompts``), the recipe's (``prompts``), there
first in a folder named as the domain, then here in the same way. So a recipe overrides one file, for one domain or for all, and a
new domain brings what is different about it: usually ``good_instruction``, ``good_message``, ``good_response`` and
``more_complex``, which the others include. Templates run in Jinja's sandbox; a variable that they do not get is a mistake, found
before anything is asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import ChoiceLoader, FileSystemLoader, StrictUndefined, TemplateError, TemplateNotFound, TemplateSyntaxError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ultrafuser.errors import did_you_mean
from ultrafuser.io import user_path
from ultrafuser.synth.record import Topic

if TYPE_CHECKING:
    from ultrafuser.synth.recipe import SynthRecipe

HERE = Path(__file__).parent
UNUSABLE = (TemplateError, TypeError, ValueError)  # the others are what a template's own arithmetic raises, and not UTF-8
LAYOUT: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
_TOPIC = Topic("domain/000/000", "Binary search", "It finds things fast.", "Looking up a word in a dictionary.")
_SUBJECT: dict[str, Any] = {"meta_topic": "Algorithms", "topic": _TOPIC}
_PLAN = [{"kind of task": "explain", "difficulty": "hard"}, {}]
_TURNS = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A way to search."}]
# What every template gets beside `domain` (its name) and `description`, with values to try it on.
VARIABLES: Mapping[str, dict[str, Any]] = {
    "meta_topics": {"count": 2, "have": ["Algorithms"]},
    "sub_topics": {"count": 2, "have": ["Binary search"], "topic": Topic("domain/000", "Algorithms"), "others": ["Databases"]},
    "instructions": {**_SUBJECT, "plan": _PLAN, "have": ["Explain binary search."]},
    "related_strong": {**_SUBJECT, "plan": _PLAN, "have": ["Explain it."], "examples": ["Explain binary search."]},
    "related_weak": {**_SUBJECT, "plan": _PLAN, "have": ["Explain it."], "examples": ["Explain binary search."]},
    "complicate": {**_SUBJECT, "instruction": "Explain binary search."},
    "response": {},
    "score": {**_SUBJECT, "instruction": "Explain binary search.", "response": "It halves."},
    "user_turn": {**_SUBJECT, "turns": _TURNS},
}


class Prompts:
    """The templates of a recipe."""

    def __init__(self, recipe: SynthRecipe) -> None:
        self.descriptions = {name: domain.description for name, domain in recipe.domains.items()}
        self._environments = {name: _environment(tuple(_folders(recipe, name))) for name in recipe.domains}
        self.hash = cache(self._hash)

    def render(self, name: str, domain: str, **variables: Any) -> str:
        """The text of one prompt. Raises `jinja2.TemplateError`, which `template_mistakes` finds before."""
        known = {"domain": domain, "description": self.descriptions[domain]}
        return self._environments[domain].get_template(f"{name}.jinja").render(known | variables).strip()

    def hashes(self) -> dict[str, dict[str, str]]:
        """The hash of every template for every domain."""
        return {domain: {name: self.hash(name, domain) for name in VARIABLES} for domain in self._environments}

    def file(self, file: str, domain: str) -> Source:
        """One file. Raises `jinja2.TemplateError`: it is not there, or cannot be read."""
        environment = self._environments[domain]
        assert environment.loader
        text, path, _ = environment.loader.get_source(environment, file)
        return _read(text, str(path))

    def sources(self, name: str, domain: str) -> dict[str, Source]:
        """The template and all that it includes, by name."""
        found, waiting = dict[str, Source](), [f"{name}.jinja"]
        while waiting:
            if (file := waiting.pop()) not in found:
                found[file] = self.file(file, domain)
                waiting += found[file].includes
        return found

    def _hash(self, name: str, domain: str) -> str:
        texts = [source.text for _, source in sorted(self.sources(name, domain).items())]
        return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


class Source(NamedTuple):
    """A file of a template: its text, where it is, what it includes, the variables that it wants."""

    text: str
    path: str
    includes: tuple[str, ...]
    variables: tuple[str, ...]


@lru_cache(maxsize=1024)
def _read(text: str, path: str) -> Source:
    tree = ImmutableSandboxedEnvironment(**LAYOUT).parse(text, filename=path)
    includes = tuple(filter(None, meta.find_referenced_templates(tree)))
    return Source(text, path, includes, tuple(sorted(meta.find_undeclared_variables(tree))))


def template_mistakes(recipe: SynthRecipe) -> Iterator[tuple[str, str]]:
    """Yield ``(key, mistake)``, each once, for templates that cannot be read or want what they do not get."""
    prompts, told = Prompts(recipe), set[str]()
    for domain in recipe.domains:
        for name, values in VARIABLES.items():
            found = [*_mistakes(prompts, name, domain, values)]
            yield from ((f"prompts.{name}", f"{path}: {text}") for text, path in found if path not in told)
            told |= {path for _, path in found}


def _mistakes(prompts: Prompts, name: str, domain: str, values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield ``(mistake, file)`` of one template and all that it includes, for one domain."""
    if wrong := [*_mistakes_in_files(prompts, name, domain)]:
        yield from wrong
        return
    nothing_yet = {key: [] if key in ("have", "others") else value for key, value in values.items()}
    try:
        for variables in (values, nothing_yet):
            prompts.render(name, domain, **variables)
    except UNUSABLE as error:
        yield f"{error}", prompts.file(f"{name}.jinja", domain).path


def _mistakes_in_files(prompts: Prompts, name: str, domain: str) -> Iterator[tuple[str, str]]:
    """Those that show without rendering: of every file, whatever is wrong with the others."""
    known = sorted({"domain", "description", *VARIABLES[name]})
    waiting = {f"{name}.jinja": f"{name}.jinja"}  # file -> who includes it
    seen = set[str]()
    while waiting:
        file, includer = waiting.popitem()
        seen.add(file)
        try:
            source = prompts.file(file, domain)
        except TemplateSyntaxError as error:
            yield f"line {error.lineno}: {error.message}", error.filename or file
        except TemplateNotFound:
            yield f"there is no template '{file}' to include", includer
        except UNUSABLE as error:
            yield f"{error}", file
        else:
            waiting |= {one: source.path for one in source.includes if one not in seen}
            for variable in source.variables:
                if variable not in known:
                    yield f"it gets no '{variable}'{did_you_mean(variable, known)} (but {', '.join(known)})", source.path


def _folders(recipe: SynthRecipe, domain: str) -> list[Path]:
    own = [recipe.domains[domain].prompts]
    shared = [user_path(recipe.prompts)] if recipe.prompts else []
    return [
        *(user_path(folder) for folder in own if folder),
        *(folder for parent in (*shared, HERE) for folder in (parent / domain, parent)),
    ]


@cache  # compiled templates are kept; Jinja notices when a file has changed
def _environment(folders: tuple[Path, ...]) -> ImmutableSandboxedEnvironment:
    loader = ChoiceLoader([FileSystemLoader(folder) for folder in folders])
    return ImmutableSandboxedEnvironment(loader=loader, undefined=StrictUndefined, **LAYOUT)
