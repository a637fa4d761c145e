"""Instructions as points of a plane, like near like (the paper's figure 3, which does not say how it was made).

Texts become vectors by the words and word pairs they hold (hashed, weighted by how rare they are, reduced to 50 dimensions), or
by an embedding model behind an OpenAI-compatible endpoint; t-SNE puts the vectors into the plane. The same texts in the same
order give the same points.
"""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultrafuser.endpoints.fetch import fetch, reason
from ultrafuser.endpoints.models import read_key
from ultrafuser.errors import UserError

Points = NDArray[np.float64]
FEATURES, DIMENSIONS, PERPLEXITY, SEED = 2**18, 50, 30, 0
FEWEST = 8  # texts that a map makes sense for
BATCH, TIMEOUT = 256, 120  # texts per request; seconds


@dataclass(frozen=True)
class Embeddings:
    """An embedding model; the key, if it needs one, is in the environment variable ``api_key_env``."""

    base_url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"


def map_texts(texts: Sequence[str], embeddings: Embeddings | None = None) -> Points:
    """A place in the unit square for each text, (n, 2). Raises `UserError` if a library or the endpoint fails."""
    if len(texts) < FEWEST:
        return np.random.default_rng(SEED).random((len(texts), 2))
    vectors = embed(texts, embeddings) if embeddings else word_vectors(texts)
    return _unit_square(_plane(vectors))


def word_vectors(texts: Sequence[str]) -> Points:
    """What words and word pairs the texts share, (n, 50) at most; what only one text has says nothing about likeness."""
    learn = _scikit_learn()
    counts = learn.HashingVectorizer(n_features=FEATURES, ngram_range=(1, 2), alternate_sign=False, norm=None).transform(texts)
    shared = counts[:, np.flatnonzero(counts.getnnz(axis=0) > 1)]
    dimensions = min(DIMENSIONS, shared.shape[1] - 1, len(texts) - 1)
    if dimensions < 1:
        return np.zeros((len(texts), 1))
    weighted = learn.TfidfTransformer(sublinear_tf=True).fit_transform(shared)
    with np.errstate(divide="ignore", invalid="ignore"):  # of a share of the variance that is not used, where there is none
        reduced = learn.TruncatedSVD(dimensions, random_state=SEED).fit_transform(weighted)
    return np.asarray(reduced / np.maximum(np.linalg.norm(reduced, axis=1, keepdims=True), 1e-9))


def embed(texts: Sequence[str], model: Embeddings) -> Points:
    """The vectors that an OpenAI-compatible endpoint gives for ``texts``, (n, d). Raises `UserError` if it fails."""
    vectors: list[list[float]] = []
    for start in range(0, len(texts), BATCH):
        batch = list(texts[start : start + BATCH])
        found = _found(_post(model, {"model": model.model, "input": batch}))
        if len(found) != len(batch):
            raise UserError(
                f"{model.base_url}: gave {len(found)} embeddings for {len(batch)} texts; is it an endpoint of embeddings?"
            )
        vectors += found
    try:
        points = np.asarray(vectors, dtype=np.float64)
    except (TypeError, ValueError):  # not numbers, or not as many in each
        points = np.array(np.nan)
    if points.ndim != 2 or not np.isfinite(points).all():
        raise UserError(f"{model.base_url}: '{model.model}' gave embeddings that are no numbers, or of several lengths")
    return points


def _found(reply: bytes) -> list[Any]:
    """The vectors in a reply, in the order of the texts; none where it is no list of embeddings."""
    try:
        return [entry["embedding"] for entry in sorted(json.loads(reply)["data"], key=lambda entry: entry["index"])]
    except (KeyError, TypeError, ValueError):
        return []


def _post(model: Embeddings, body: dict[str, Any]) -> bytes:
    key = read_key(model.api_key_env, model.base_url) if os.environ.get(model.api_key_env) else None
    url = f"{model.base_url.rstrip('/')}/embeddings"
    try:
        return fetch(url, key, body=body, seconds=TIMEOUT)
    except urllib.error.HTTPError as error:
        hint = f"; is {model.api_key_env} set to its key?" if error.code in (401, 403) else ""
        raise UserError(f"{url}: answered {error.code} {error.reason}{hint}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: no URL
        raise UserError(f"{url}: cannot be asked for embeddings ({reason(error)})") from None


def _plane(vectors: Points) -> Points:
    """t-SNE; it crashes on points that are all the same, so all are moved by a hair."""
    learn = _scikit_learn()
    vectors = vectors + np.random.default_rng(SEED).normal(scale=1e-4, size=vectors.shape)
    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    return np.asarray(
        learn.TSNE(
            perplexity=perplexity, init="pca" if vectors.shape[1] > 1 else "random", max_iter=500, random_state=SEED
        ).fit_transform(vectors)
    )


def _unit_square(points: Points) -> Points:
    """Scaled to 0..1 in both directions; the outermost hundredth is moved to the border, so that few do not squeeze all."""
    low, high = np.quantile(points, [0.005, 0.995], axis=0)
    return np.clip((points - low) / np.maximum(high - low, 1e-9), 0, 1)


def _scikit_learn() -> Any:
    """The parts of scikit-learn used here, under one name."""
    try:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
        from sklearn.manifold import TSNE
    except ImportError:
        raise UserError("the map of instructions needs scikit-learn: pip install 'ultrafuser[synth]'") from None
    return SimpleNamespace(
        HashingVectorizer=HashingVectorizer, TfidfTransformer=TfidfTransformer, TruncatedSVD=TruncatedSVD, TSNE=TSNE
    )
