"""A hub of their own for the tests of what is fetched, in place of the real one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import datasets.config
import huggingface_hub.constants
import pytest
from hub_world import make_trio
from huggingface_hub import HfFileSystem, close_session

from fake_hub import FakeHub
from ultrafuser.model.fuse import fuse


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A running hub that this process takes for the real one, with an empty cache and nobody logged in."""
    with FakeHub() as server:
        point_at(server.url, tmp_path / "hf_home", monkeypatch)
        yield server
    close_session()  # its open connections lead nowhere now


def point_at(url: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT and HF_HOME do; the libraries read these when they are imported, which is long past."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    hub, data = huggingface_hub.constants, datasets.config
    settings = {
        hub: {
            "ENDPOINT": url,
            "HUGGINGFACE_CO_URL_TEMPLATE": url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_TOKEN_PATH": str(home / "token"),
        },
        data: {
            "HF_ENDPOINT": url,
            "HUB_DATASETS_URL": url + "/datasets/{repo_id}/resolve/{revision}/{path}",
            "HF_DATASETS_CACHE": home / "datasets",
            "DOWNLOADED_DATASETS_PATH": home / "datasets" / "downloads",
        },
    }
    for module, values in settings.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    HfFileSystem.clear_instance_cache()


@pytest.fixture
def offline() -> Callable[[], AbstractContextManager[None]]:
    """What HF_HUB_OFFLINE=1 does, inside of ``with offline():``."""

    @contextmanager
    def without_network() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for module in (huggingface_hub.constants, datasets.config):
                patch.setattr(module, "HF_HUB_OFFLINE", True)
            close_session()  # the next one looks at the switch
            yield
        close_session()

    return without_network


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nobody waits before trying again; how long they would have."""
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    return waits


@pytest.fixture(scope="session")
def trio(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three tiny specialists with unlike templates, by name; the second is in several files."""
    return make_trio(tmp_path_factory.mktemp("trio"))


@pytest.fixture(scope="session")
def fused(trio: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the three fuse to."""
    return fuse(list(trio.values()), tmp_path_factory.mktemp("fused") / "fused", names=list(trio))
