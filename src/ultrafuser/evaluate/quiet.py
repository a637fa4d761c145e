"""Keeps lm-evaluation-harness and its libraries from writing logs, warnings and bars of their own over ours."""

from __future__ import annotations

import contextlib
import functools
import logging
import warnings
from collections.abc import Iterator

import datasets
import transformers
from tqdm import tqdm

LOGGERS = ("lm_eval", "datasets", "huggingface_hub")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence them inside the ``with`` block; errors still raise."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    verbosity, bars = transformers.logging.get_verbosity(), datasets.are_progress_bars_disabled()
    make_bar = tqdm.__init__
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    # The harness makes bars in places that no option reaches.
    tqdm.__init__ = functools.partialmethod(make_bar, disable=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        tqdm.__init__ = make_bar
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        transformers.logging.set_verbosity(verbosity)
        if not bars:
            datasets.enable_progress_bars()
