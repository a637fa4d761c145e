"""Keeps every finished answer on disk at once, so that a run that is killed at any moment asks nothing twice (issue 3, "Engine").

One SQLite file holds the answers of all models. A key says everything that decides an answer: which weights and tokenizer
(`model.digest.model_digest`), what kind of request, the prompt and the generation settings. The size of a batch is not in it: it
changes an answer by rounding at most. Values are JSON.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ultrafuser.errors import UserError

AT_ONCE = 500  # keys in one question to the file


def request_key(model: str, kind: str, arguments: Sequence[Any]) -> str:
    """The key of a request: ``kind`` and ``arguments`` as lm-evaluation-harness has them, JSON values, put to ``model``."""
    text = json.dumps([model, kind, *arguments], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


class KeptAnswers:
    """Answers by key, in the file ``path`` (None: in memory only). A file that is no such store raises `UserError`."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        try:
            self.connection = sqlite3.connect(path or ":memory:", isolation_level=None)
            # An answer survives the end of the process as soon as it is written; only a power cut can lose the last ones.
            self.connection.execute("PRAGMA journal_mode=WAL")
            self.connection.execute("PRAGMA synchronous=NORMAL")
            self.connection.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)")
        except sqlite3.Error as error:
            raise UserError(f"{path}: answers cannot be kept there ({error}); move it away or choose another output") from None

    def keep(self, key: str, answer: Any) -> None:
        """Write one answer, a JSON value. Raises `UserError` when it cannot be written."""
        try:
            self.connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(answer)))
        except sqlite3.Error as error:
            raise UserError(f"{self.path}: answers cannot be kept any more ({error}); what is there stays, start again") from None

    def find(self, keys: Iterable[str]) -> dict[str, Any]:
        """The answers that are there, by key."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, Any] = {}
        for start in range(0, len(wanted), AT_ONCE):
            some = wanted[start : start + AT_ONCE]
            marks = ",".join("?" * len(some))
            rows = self.connection.execute(f"SELECT key, answer FROM answers WHERE key IN ({marks})", some)
            found |= {key: json.loads(answer) for key, answer in rows}
        return found

    def close(self) -> None:
        """Close the file."""
        self.connection.close()
