"""The Hugging Face hub as users see it: how a repository there is written, and why it could not be had, in one line.

A repository of models or data is written ``owner/name`` or ``owner/name@revision``; a revision is a branch, a tag or a commit.
Whoever fetches something calls the hub's client, or `load_dataset`, and tells of what they raise through `reason`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LOG_IN = "log in with 'hf auth login'"


def split_revision(given: str) -> tuple[str, str | None]:
    """``owner/name`` and the revision, None for the main branch."""
    repository, _, revision = given.partition("@")
    return repository, revision or None


def origin(folder: Path) -> str:
    """Where a model came from: ``owner/name at COMMIT`` out of the hub's cache, else the folder's name, nobody's secret."""
    snapshots = folder.parent
    if snapshots.name != "snapshots":
        return folder.resolve().name
    return f"{snapshots.parent.name.removeprefix('models--').replace('--', '/', 1)} at {folder.name}"


@contextmanager
def bars_on_terminals_only(*libraries: Any) -> Iterator[None]:
    """Let ``huggingface_hub.utils`` or ``datasets`` draw progress bars only where somebody sees them move."""
    shown = [] if sys.stderr.isatty() else [one for one in libraries if not one.are_progress_bars_disabled()]
    for one in shown:
        one.disable_progress_bars()
    try:
        yield
    finally:
        for one in shown:
            one.enable_progress_bars()


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Let the hub's client not tell of every attempt at a hub that does not answer."""
    from huggingface_hub.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def load_dataset(given: str, name: str | None = None, *, split: str) -> Any:
    """The rows of a split of a dataset of the hub, of its configuration ``name``. Raises what `datasets` and the client raise.

    Where the hub does not answer, `datasets` gives what it loaded last, whichever revision that was; another is refused here.
    """
    import datasets
    from huggingface_hub import utils

    repository, revision = split_revision(given)
    if given.endswith("@"):
        raise ValueError("no revision stands after '@'")
    with bars_on_terminals_only(datasets, utils):
        rows = datasets.load_dataset(repository, name, split=split, revision=revision)
    commit = _commit(repository, revision)
    if not all(commit in file["filename"] for file in rows.cache_files):
        raise FileNotFoundError("the cache gives another revision of it, and the hub cannot be reached")
    return rows


def _commit(repository: str, revision: str | None) -> str:
    """Which commit a revision of a dataset is. Asks the hub only where the client's cache has been emptied."""
    from huggingface_hub import HfApi, errors, snapshot_download

    try:  # of the files that lie there none need be whole, so that nothing is fetched
        folder = snapshot_download(repository, repo_type="dataset", revision=revision, local_files_only=True, allow_patterns=[])
    except errors.LocalEntryNotFoundError:
        return str(HfApi().dataset_info(repository, revision=revision).sha)
    return Path(folder).name


def reason(error: BaseException) -> str:
    """Why the hub did not give what was asked of it, in one line that says what to do about it."""
    chain = list(_chain(error))
    known = next((text for one in chain if (text := _known(one))), None)
    if known:
        return known
    last = chain[-1] if type(error).__name__ == "DatasetGenerationError" else error  # that one says only that something failed
    return next(iter(str(last).strip().splitlines()), type(last).__name__)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__


def _known(error: BaseException) -> str | None:
    """What an error of the hub's client or of `datasets` means; None for one that says it best itself."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.GatedRepoError):
        return _not_found(gated=True)
    if isinstance(error, errors.RepositoryNotFoundError):
        return _not_found(gated=False)
    if type(error).__name__ == "DatasetNotFoundError" and not error.__cause__:  # `datasets` often keeps no more than these words
        return _not_found(gated="is a gated dataset" in str(error))
    if isinstance(error, errors.RevisionNotFoundError):
        return "it has no such branch, tag or commit"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return "a file that belongs there is not there any more"
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        return f"your token is not accepted: {LOG_IN}" if status == 401 else f"the hub answers {status}; try again later"
    client = type(error).__module__.startswith("http")  # httpx, under any name
    missing = isinstance(error, errors.LocalEntryNotFoundError) and not error.__cause__
    in_words = "LocalEntryNotFoundError" in str(error)  # all that another error may keep of it
    if client or missing or in_words or isinstance(error, ConnectionError):
        return "it is not in the cache, and HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
    return None


def _not_found(*, gated: bool) -> str:
    """What to do about a repository that is not shown to whoever asks."""
    from huggingface_hub import get_token

    logged_in = get_token() is not None
    if gated:
        return "it is gated: ask for access on its page there" + ("" if logged_in else f", then {LOG_IN}")
    return "there is no such repository, or " + ("your account may not see it" if logged_in else f"it is private: {LOG_IN}")
