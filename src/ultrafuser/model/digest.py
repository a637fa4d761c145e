"""Tells checkpoints apart by what is in them, not by their paths or dates, in no time even for 100 GB.

Everything but the weights is read whole; of every tensor the beginning, the middle and the end are. Training moves all of a
tensor's numbers, so whatever was trained, merged or edited shows, also if it is a single small tensor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from ultrafuser.model.tensors import read_header, tensor_bytes

SMALL = (".json", ".jinja", ".model", ".txt")  # configuration, generation settings, tokenizer, chat template
SAMPLE_BYTES = 4096
SAMPLES = 1024  # of a file of weights that is not safetensors


def model_digest(folder: Path) -> str:
    """Digest of the files directly in ``folder`` that decide what the model there answers."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in SMALL:
            digest.update(file.name.encode() + b"\n" + file.read_bytes())
        elif file.suffix in (".safetensors", ".bin"):
            digest.update(f"{file.name} {file.stat().st_size}\n".encode())
            _add_samples(digest, file)
    return digest.hexdigest()[:16]


def weights_digest(file: Path) -> str:
    """SHA-256, in hex, of what is sampled of a file of weights: its header, and three places of every tensor."""
    digest = hashlib.sha256()
    _add_samples(digest, file)
    return digest.hexdigest()


def _add_samples(digest: hashlib._Hash, file: Path) -> None:
    with open(file, "rb") as stream:
        for place in _places(file):
            stream.seek(place)
            digest.update(stream.read(SAMPLE_BYTES))


def _places(file: Path) -> Iterator[int]:
    """Where to read samples in a file of weights."""
    size = file.stat().st_size
    if file.suffix != ".safetensors":
        yield from (size * sample // SAMPLES for sample in range(SAMPLES))
        return
    yield 0  # the header: names, shapes and dtypes
    for tensor in read_header(file).values():
        end = tensor.offset + tensor_bytes(tensor)
        yield from (tensor.offset, (tensor.offset + end) // 2, max(tensor.offset, end - SAMPLE_BYTES))
