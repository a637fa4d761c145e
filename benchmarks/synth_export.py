"""How long does it take to write the data of a large synthesis, and in how much memory? Target: 300,000 in 180 s and 2 GB.

Fills a store with as many answers and conversations as the paper's data has, then lets a fresh process write JSON lines, Parquet
and the card from it. Prints JSON: the seconds, the peak memory of that process, and the sizes of the files.

    python benchmarks/synth_export.py
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from _memory import host_memory

TOPICS = {"text": (30, 1100), "code": (21, 407), "math": (21, 80)}  # meta-topics and sub-topics, as in the paper's table 15
INSTRUCTION_WORDS, RESPONSE_WORDS = 40, 350
DROPPED = 0.1
BATCH = 10_000


def recipe(folder: Path) -> Any:
    from ultrafuser.synth.recipe import SynthRecipe, shipped_domains

    counts = {"meta_topics": 1, "sub_topics": 1, "instructions": 1}
    fields = {"name": "benchmark", "output": str(folder), "domains": {name: shipped_domains()[name] | counts for name in TOPICS}}
    models = {"writer": {"endpoints": [{"base_url": "http://localhost/v1", "model": "m"}]}}
    return SynthRecipe.model_validate(fields | {"models": models})


def fill(folder: Path, answers: int) -> None:
    """A store with that many answers, each the response of an item."""
    from ultrafuser.endpoints.store import AnswerStore
    from ultrafuser.synth.record import Topic
    from ultrafuser.synth.state import State

    pairs = conversations(answers, random.Random(0))
    with AnswerStore(recipe(folder).store) as store:
        state = State(store)
        with state.transaction():
            state.save_topics(Topic(id, f"Topic {id}") for id in topic_ids())
        while batch := list(islice(pairs, BATCH)):
            store.add_requests(request for request, _, _ in batch)
            store.add_answers(answer for _, answer, _ in batch)
            with state.transaction():
                state.save_items(item for _, _, item in batch)


def topic_ids() -> Iterator[str]:
    for domain, (metas, subs) in TOPICS.items():
        yield domain
        yield from (f"{domain}/{meta:03d}" for meta in range(metas))
        yield from (f"{domain}/{sub % metas:03d}/{sub // metas:03d}" for sub in range(subs))


def conversations(count: int, draw: random.Random) -> Iterator[tuple[Any, Any, Any]]:
    """Requests with their answers and the items that hold them."""
    from ultrafuser.endpoints.request import ChatAnswer, ChatRequest
    from ultrafuser.synth.record import Item

    words = ["".join(draw.choices("aeinorst", k=6)) for _ in range(5000)]
    places = [id for id in topic_ids() if id.count("/") == 2]
    for number in range(count):
        topic = places[number % len(places)]
        instruction, response = (" ".join(draw.choices(words, k=k)) for k in (INSTRUCTION_WORDS, RESPONSE_WORDS))
        request = ChatRequest("writer", ({"role": "user", "content": instruction},), "responses", seed=number)
        answer = ChatAnswer(request.key, response, "stop", 60, 480, 0.0005, "m", "http://localhost/v1", 1.0)
        origin = {"key": request.key, "prompt": "0123456789abcdef", "model": "m", "endpoint": "http://localhost/v1"}
        origin["sampling"] = {"temperature": 0.7, "top_p": 0.95, "max_tokens": 2048, "seed": number}
        item = Item(
            id=f"{topic}/{number // len(places):04d}", domain=topic.partition("/")[0], meta_topic="", sub_topic="", kind="seed",
            instruction=instruction, response=response, status="dropped" if draw.random() < DROPPED else "accepted",
            reason="refusal: no", provenance={"instructions": origin, "responses": origin}, traits={"difficulty": "medium"},
            original=instruction if number % 10 < 3 else None, step="done", slot=number,
        )  # fmt: skip
        yield request, answer, item


def write(folder: Path) -> None:
    """What is measured, in a process of its own."""
    from ultrafuser.endpoints.store import AnswerStore
    from ultrafuser.synth.publish import publish

    start = time.perf_counter()
    with AnswerStore(recipe(folder).store) as store:
        files = publish(recipe(folder), store)
    figures = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time()}
    sizes = {f"{file.name}_bytes": file.stat().st_size for file in files}
    print(json.dumps({**figures, "peak_gigabytes": host_memory("VmHWM") / 1e9, **sizes}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=300_000)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: where others use the machine too")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write(options.write)
        return
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder), options.answers)
        command = [sys.executable, __file__, "--write", folder]
        figures = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    reached = figures["seconds" if options.clock == "wall" else "cpu_seconds"] < 180 and figures["peak_gigabytes"] < 2
    machine = {"python": platform.python_version(), "machine": platform.platform()}
    print(json.dumps({"answers": options.answers, **figures, "target": "180 s, 2 GB", "reached": reached, **machine}, indent=2))


if __name__ == "__main__":
    main()
