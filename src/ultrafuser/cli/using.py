"""generate, chat, inspect: a model at work."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from ultrafuser.cli.app import app
from ultrafuser.cli.options import Device, Dtype, LoadIn, Model, Overwrite, Prompt, SampleSeed, System, Temperature, Tokens, TopP


@app.command()
def generate(
    model: Model,
    prompt: Prompt,
    system: System = None,
    max_new_tokens: Tokens = 512,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: SampleSeed = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    load_in: LoadIn = None,
) -> None:
    """Answer one prompt.

    Example: `ultrafuser generate trained "Write a function that adds two numbers." --temperature 0`
    """
    from ultrafuser.cli import values
    from ultrafuser.model.load import load
    from ultrafuser.run.generate import Decoding, say

    loaded, tokenizer = load(model, dtype=dtype, device=device, load_in=load_in)
    said = say(loaded, tokenizer, values.messages(prompt, system), Decoding(max_new_tokens, temperature, top_p, seed))
    if said.interrupted:
        raise KeyboardInterrupt


@app.command()
def chat(
    model: Model,
    system: System = None,
    max_new_tokens: Tokens = 1024,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: SampleSeed = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    load_in: LoadIn = None,
) -> None:
    """Talk with a model. `/reset` forgets what was said, `/quit` ends, Ctrl-C stops an answer.

    Example: `ultrafuser chat trained --temperature 0.7`
    """
    from ultrafuser.model.load import load
    from ultrafuser.run.chat import chat
    from ultrafuser.run.generate import Decoding

    loaded, tokenizer = load(model, dtype=dtype, device=device, load_in=load_in)
    chat(loaded, tokenizer, Decoding(max_new_tokens, temperature, top_p, seed), system=system)


@app.command()
def inspect(
    model: Model,
    prompt: Prompt,
    html: Annotated[Path | None, typer.Option(help="Write a page instead of colouring the terminal.")] = None,
    system: System = None,
    max_new_tokens: Tokens = 256,
    dtype: Dtype = "auto",
    device: Device = "auto",
    load_in: LoadIn = None,
    overwrite: Overwrite = False,
) -> None:
    """Answer one prompt and colour each token by the specialists that produced it.

    Example: `ultrafuser inspect trained "Tom has 3 apples and buys 4 more. How many?" --html answer.html`
    """
    from ultrafuser.analyse.inspect import inspect_prompt
    from ultrafuser.cli import values
    from ultrafuser.io import new_file, require_new
    from ultrafuser.model.load import load, model_folder

    with new_file(html, overwrite=overwrite) if html else nullcontext() as page:  # refuses a place before the answer is made
        if html:
            require_new(html, overwrite=overwrite, inputs=model_folder(model).rglob("*"))
        loaded, tokenizer = load(model, dtype=dtype, device=device, load_in=load_in)
        inspect_prompt(loaded, tokenizer, values.messages(prompt, system), max_new_tokens=max_new_tokens, html=page)
    if html:
        print(f"wrote {html}")
