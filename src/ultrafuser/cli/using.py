"""generate, chat, inspect: a model at work."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from ultrafuser.cli.app import app
from ultrafuser.cli.groups import grouped
from ultrafuser.cli.options import Loading, Model, Overwrite, Prompt, Sampling, System, Tokens


@app.command()
@grouped
def generate(
    model: Model,
    prompt: Prompt,
    system: System = None,
    max_new_tokens: Tokens = 512,
    *,
    sampling: Sampling,
    loading: Loading,
) -> None:
    """Answer one prompt.

    Example: `ultrafuser generate trained "Write a function that adds two numbers." --temperature 0`
    """
    from ultrafuser.cli import values
    from ultrafuser.model.load import load
    from ultrafuser.run.generate import Decoding, say

    loaded, tokenizer = load(model, **vars(loading))
    said = say(loaded, tokenizer, values.messages(prompt, system), Decoding(max_new_tokens, **vars(sampling)))
    if said.interrupted:
        raise KeyboardInterrupt


@app.command()
@grouped
def chat(
    model: Model,
    system: System = None,
    max_new_tokens: Tokens = 1024,
    *,
    sampling: Sampling,
    loading: Loading,
) -> None:
    """Talk with a model. `/reset` forgets what was said, `/quit` ends, Ctrl-C stops an answer.

    Example: `ultrafuser chat trained --temperature 0.7`
    """
    from ultrafuser.model.load import load
    from ultrafuser.run.chat import chat
    from ultrafuser.run.generate import Decoding

    loaded, tokenizer = load(model, **vars(loading))
    chat(loaded, tokenizer, Decoding(max_new_tokens, **vars(sampling)), system=system)


@app.command()
@grouped
def inspect(
    model: Model,
    prompt: Prompt,
    html: Annotated[Path | None, typer.Option(help="A page to write.", show_default="the terminal is coloured")] = None,
    system: System = None,
    max_new_tokens: Tokens = 256,
    overwrite: Overwrite = False,
    *,
    loading: Loading,
) -> None:
    """Answer one prompt and colour each token by the specialists that produced it.

    Example: `ultrafuser inspect trained "Tom has 3 apples and buys 4 more. How many?" --html answer.html`
    """
    from ultrafuser.analyse.inspect import inspect_prompt
    from ultrafuser.cli import values
    from ultrafuser.io import new_file, require_outside
    from ultrafuser.model.load import load, model_folder

    with new_file(html, overwrite=overwrite) if html else nullcontext() as page:  # refuses a place before the answer is made
        if html:
            require_outside(html, model_folder(model))
        loaded, tokenizer = load(model, **vars(loading))
        inspect_prompt(loaded, tokenizer, values.messages(prompt, system), max_new_tokens=max_new_tokens, html=page)
    if html:
        print(f"wrote {html}")
