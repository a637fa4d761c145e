"""How much does it cost to ask? Requests per second, requests in flight and processor time of the client (`LocalEngine`).

A server in a process of its own answers every request after ``--latency`` seconds; the client keeps ``--in-flight`` requests on
their way and commits every answer to a store on disk. Prints JSON:

    in_flight             mean number of requests on their way, from the first to the last (target: 95% of --in-flight)
    requests_per_second   (target: at least 500)
    cores                 processor time of the client / time that passed (target: less than 1)
    cores_at_500          the same if it had been slowed down to 500 requests a second: on a machine with time to spare the client
                          goes as fast as the latency lets it

    python benchmarks/synth_requests.py --requests 10000
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SERVER = Path(__file__).parents[1] / "tests" / "fake_endpoint.py"
PROMPT_WORDS, ANSWER_WORDS = 300, 200


@contextmanager
def server(latency: float) -> Iterator[str]:
    """The base URL of a server in another process."""
    command = [sys.executable, str(SERVER), "--latency", str(latency), "--words", str(ANSWER_WORDS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        yield process.stdout.readline().strip()
        process.stdin.close()


def measure(url: str, folder: str, requests: int, in_flight: int) -> dict[str, float]:
    """Ask, and set processor time against the time that passed; recording the requests and connecting are counted too."""
    from ultrafuser.endpoints.engine import LocalEngine
    from ultrafuser.endpoints.models import Endpoint, Model
    from ultrafuser.endpoints.request import ChatRequest
    from ultrafuser.endpoints.store import AnswerStore

    model = Model(endpoints=(Endpoint(base_url=url, model="fake", max_concurrency=in_flight),), max_tokens=400)
    texts = (f"{n} " + "word " * PROMPT_WORDS for n in range(requests))
    asked = [ChatRequest("m", ({"role": "user", "content": text},), step="benchmark") for text in texts]
    with AnswerStore(Path(folder) / "answers.sqlite") as store:
        moments: list[float] = []
        engine = LocalEngine({"m": model}, store, concurrency=in_flight, progress=lambda _: moments.append(time.perf_counter()))
        start, processor = time.perf_counter(), time.process_time()
        answers = engine.answer(asked)
        seconds, processor = time.perf_counter() - start, time.process_time() - processor
    return {
        "in_flight": sum(answer.seconds for answer in answers) / (moments[-1] - moments[0]),
        "requests_per_second": requests / seconds,
        "cores": processor / seconds,
        "cores_at_500": processor / requests * 500,
        "milliseconds_per_request": processor / requests * 1000,
    }


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--in-flight", type=int, default=200)
    parser.add_argument("--latency", type=float, default=0.1, help="of the server, in seconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, server(options.latency) as url:
        figures = measure(url, folder, options.requests, options.in_flight)
    reached = figures["in_flight"] >= 0.95 * options.in_flight and figures["requests_per_second"] >= 500 and figures["cores"] < 1
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    rounded = {name: round(figure, 3) for name, figure in figures.items()}
    report = {"benchmark": "synth_requests", **rounded, "reached": reached, "settings": vars(options), "machine": machine}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
