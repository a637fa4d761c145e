"""The same answers by batch inference over Ray Data, for more than one machine can ask (issue part "Any endpoint").

    ray start --head; ultrafuser synth RECIPE.yaml engine=ray actors=16    # or: ray job submit -- ultrafuser synth ..

Actors all over the cluster ask the model's endpoints with the client of `LocalEngine` and send the answers to this process,
which commits each block of them before it is used. For local models at scale run one vLLM server on every node with GPUs

    vllm serve MODEL --port 8000

and give the model the endpoint http://localhost:8000/v1: every actor asks the server of its own node. Keys are read from the
environment of the nodes; they do not travel. An actor has an equal part of each endpoint's ``max_concurrency``.

What differs from `LocalEngine`: a kill or a lost node loses the blocks that are on their way, not milliseconds (they are asked
again), and near a spending cap requests go out in ever smaller waves.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ultrafuser.endpoints.batch import Batch
from ultrafuser.endpoints.budget import Budget, most_tokens
from ultrafuser.endpoints.engine import run_blocking
from ultrafuser.endpoints.line import Patience
from ultrafuser.endpoints.models import Model, Models
from ultrafuser.endpoints.pool import Pool
from ultrafuser.endpoints.progress import Progress
from ultrafuser.endpoints.protocol import prompt_tokens
from ultrafuser.endpoints.request import ChatAnswer, ChatRequest
from ultrafuser.endpoints.store import AnswerStore
from ultrafuser.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}  # read by Ray when it is imported or started
CPUS = 0.25  # of an actor, which mostly waits
LIGHT = {"env_vars": {"ULTRAFUSER_WITHOUT_MODELS": "1"}}  # an actor starts in a second instead of loading torch first


class RayEngine:
    """Asks from actors on a Ray cluster: the one that RAY_ADDRESS names, or else one that is started on this machine.

    Args:
        models, store, budget, progress, patience: as of `LocalEngine`.
        actors: how many ask at once; give more than there are nodes, because each waits for the last answer of its block.
        block: requests in a block, all on their way at once.

    Raises `UserError` if Ray is not installed.
    """

    def __init__(
        self,
        models: Models,
        store: AnswerStore,
        *,
        budget: float | None = None,
        actors: int = 4,
        block: int = 64,
        progress: Callable[[Progress], None] | None = None,
        patience: Patience | None = None,
    ):
        self.models, self.store, self.actors, self.block = models, store, actors, block
        self.progress, self.patience = progress, patience or Patience()
        self.budget = Budget(budget, store.spent())
        self._data = _ray_data()

    def answer(self, requests: Sequence[ChatRequest]) -> list[ChatAnswer]:
        """See `Engine.answer`."""
        batch = Batch(requests, self.models, self.store)
        waiting = batch.missing
        while waiting:
            if not (wave := self._affordable(waiting)):
                raise self.budget.reached()
            self._ask(batch, wave)
            waiting = waiting[len(wave) :]
        if self.progress:
            self.progress(batch.progress(self.budget.spent))
        return batch.in_order()

    def _affordable(self, requests: Sequence[ChatRequest]) -> Sequence[ChatRequest]:
        """The first of ``requests``, as many as the cap allows for if each costs the most it can."""
        total = 0.0
        for count, request in enumerate(requests):
            model = self.models[request.model]
            total += max(endpoint.cost(prompt_tokens(request), most_tokens(request, model)) for endpoint in model.endpoints)
            if not self.budget.affords(total):
                return requests[:count]
        return requests

    def _ask(self, batch: Batch, wave: Sequence[ChatRequest]) -> None:
        """Ask for all of ``wave``, keep what comes. Raises the first actor's `UserError` when all have ended."""
        stopped: list[str] = []
        for rows in self._blocks(wave):
            stopped += [row["stopped"] for row in rows if "stopped" in row]
            answers = [ChatAnswer(**row) for row in rows if "stopped" not in row]
            batch.keep(answers)
            self.budget.settle(0.0, sum(answer.cost for answer in answers))
            if self.progress:
                self.progress(batch.progress(self.budget.spent))
        if stopped:
            raise UserError(stopped[0])

    def _blocks(self, wave: Sequence[ChatRequest]) -> Iterator[list[dict[str, Any]]]:
        """The rows of `Asker`, a block at a time, as they are ready."""
        blocks = -(-len(wave) // self.block)
        actors = min(self.actors, blocks)
        models = {name: _part(model, actors).model_dump(mode="json") for name, model in self.models.items()}
        answers = self._data.from_items(
            [{"content": request.content} for request in wave], override_num_blocks=blocks
        ).map_batches(
            Asker,
            fn_constructor_kwargs={"models": models, "patience": self.patience},
            batch_size=None,  # a block
            batch_format="pyarrow",
            compute=self._data.ActorPoolStrategy(size=actors),
            num_cpus=CPUS,
            runtime_env=LIGHT,
        )
        for table in answers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield [json.loads(row) for row in table["row"].to_pylist()]


class Asker:
    """An actor: asks for the requests of a block. Its rows are answers as JSON, and ``{"stopped": ..}`` when it had to stop."""

    def __init__(self, models: Mapping[str, Any], patience: Patience):
        self._models = {name: Model.model_validate(model) for name, model in models.items()}
        self._patience = patience
        self._stopped = ""

    def __call__(self, block: pa.Table) -> pa.Table:
        """From a table of contents of requests to a table of rows."""
        import pyarrow

        rows = self._rows([ChatRequest.from_content(content) for content in block["content"].to_pylist()])
        return pyarrow.table({"row": [json.dumps(row) for row in rows]})

    def _rows(self, requests: Sequence[ChatRequest]) -> list[dict[str, Any]]:
        from ultrafuser.endpoints.dispatch import Dispatcher

        answers: list[ChatAnswer] = []
        if not self._stopped:
            try:
                pools = {name: Pool(model, self._patience) for name, model in self._models.items()}
                run_blocking(Dispatcher(pools, Budget(None, 0.0), len(requests), answers.extend).run(requests))
            except UserError as error:  # later blocks are not asked: the user must see to it first
                self._stopped = str(error)
        return [*map(asdict, answers), *([{"stopped": self._stopped}] if self._stopped else [])]


def _part(model: Model, actors: int) -> Model:
    """``model`` with the part of its concurrency that one of so many actors has."""
    parts = [
        endpoint.model_copy(update={"max_concurrency": max(1, endpoint.max_concurrency // actors)})
        for endpoint in model.endpoints
    ]
    return model.model_copy(update={"endpoints": tuple(parts)})


def _ray_data() -> Any:
    """Ray Data, on a cluster, quiet, and reporting to nobody."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError:
        raise UserError("asking over a cluster needs Ray Data: pip install 'ultrafuser[ray]'") from None
    if not ray.is_initialized():
        dashboard = None if os.environ.get("RAY_ADDRESS") else False
        with _stderr_closed():  # where Ray says that it is going to be quiet; what goes wrong is raised
            ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=dashboard)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray.data


@contextmanager
def _stderr_closed() -> Iterator[None]:
    """Nothing reaches stderr, from other languages neither."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
