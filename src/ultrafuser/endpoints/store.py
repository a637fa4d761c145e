"""The store of requests and answers: one SQLite file, keyed by content (issue part "Nothing paid for is lost or bought twice").

Write-ahead log, synchronous=NORMAL: what is committed is in the operating system's hands, so a kill of the process, at any
moment, loses nothing that was handed out; a power cut may lose the last seconds (never the file), which are then asked again.
One process writes: the file beside the store, ``NAME.lock``, is held until it ends, however it ends.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ultrafuser.endpoints.request import ChatAnswer, ChatRequest
from ultrafuser.errors import UserError
from ultrafuser.io import require_space

FORMAT = 1  # in PRAGMA user_version
ROOM = 64 * 2**20  # bytes that must be free before anything is bought: more than what is on its way can need
CHUNK = 10_000  # keys in one query
IDENTITY = "identity"  # the fact that says whose the store is
_ROW = attrgetter(*(field.name for field in fields(ChatAnswer)))  # dataclasses.astuple would copy every value
TABLES = """
    CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS requests (key TEXT PRIMARY KEY, step TEXT NOT NULL, content TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS answers (
        key TEXT PRIMARY KEY, text TEXT NOT NULL, finish_reason TEXT NOT NULL, prompt_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL, cost REAL NOT NULL, model TEXT NOT NULL, endpoint TEXT NOT NULL,
        seconds REAL NOT NULL);
    CREATE TABLE IF NOT EXISTS failures (key TEXT NOT NULL, reason TEXT NOT NULL, endpoint TEXT NOT NULL, time REAL NOT NULL);
"""


@dataclass(frozen=True)
class Totals:
    """What a step has asked for and got; ``cost`` in USD."""

    requests: int = 0
    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


class AnswerStore:
    """The store at ``path``, made if there is none; a context manager.

    Args:
        path: the SQLite file. Its directory must exist.
        read_only: only look, while another process may be writing.

    ``connection`` is for other tables in the same file: each statement is committed on its own, or all of a
    ``with store.transaction():``. Raises `UserError`, in one line, for a file that is no store, is in use by another process
    or cannot be written, here and in every method.
    """

    def __init__(self, path: str | Path, *, read_only: bool = False):
        self.path = Path(path)
        if not self.path.parent.is_dir():
            raise UserError(f"{path}: its directory does not exist; make it or choose another place")
        if read_only and not self.path.is_file():
            raise UserError(f"{path}: no such store of answers")
        self._lock = None if read_only else _locked(self.path)
        try:
            with self._explained():
                self.connection = self._open(read_only)
        except BaseException:
            if self._lock:
                self._lock.release()
            raise

    def _open(self, read_only: bool) -> sqlite3.Connection:
        uri = f"{self.path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, FORMAT):
                raise UserError(f"{self.path}: has format {version}, not {FORMAT}; use the version of ultrafuser that made it")
            if not read_only:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=NORMAL")
                connection.executescript(f"BEGIN; {TABLES} PRAGMA user_version={FORMAT}; COMMIT;")
        except BaseException:
            connection.close()
            raise
        return connection

    def __enter__(self) -> AnswerStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; safe to call twice."""
        self.connection.close()
        if self._lock:
            self._lock.release()

    # -- writing

    def claim(self, identity: str, whose: str = "recipe") -> None:
        """Make the store that of ``identity``, or check that it is. Raises `UserError` if it is another's.

        ``identity`` should cover what decides answers apart from the requests: the models behind the names, their sampling.
        """
        self.remember(IDENTITY, identity)
        if self.remembered(IDENTITY) != identity:
            raise UserError(f"{self.path}: holds the answers of another {whose}; give that {whose}, or another store")

    def unclaim(self) -> None:
        """Forget whose the store is; the next to claim it gets it."""
        self._write("DELETE FROM facts WHERE name = ?", [(IDENTITY,)])

    def remember(self, name: str, value: str = "") -> None:
        """Keep a fact about the whole store; one of that name that is there stays."""
        self._write("INSERT OR IGNORE INTO facts VALUES (?, ?)", [(name, value)])

    def add_requests(self, requests: Iterable[ChatRequest]) -> None:
        """Record what is going to be asked; what is known already keeps its step."""
        rows = ((request.key, request.step, request.content) for request in requests)
        self._write("INSERT OR IGNORE INTO requests VALUES (?, ?, ?)", rows)

    def add_answers(self, answers: Iterable[ChatAnswer]) -> None:
        """Commit answers; failed ones go to the table ``failures`` only. The first answer to a request stays."""
        answers = list(answers)
        failed = [(answer.key, answer.finish_reason, answer.endpoint, time.time()) for answer in answers if answer.failed]
        with self.transaction():
            good = map(_ROW, (answer for answer in answers if not answer.failed))
            self.connection.executemany(f"INSERT OR IGNORE INTO answers VALUES ({', '.join('?' * 9)})", good)
            self.connection.executemany("INSERT INTO failures VALUES (?, ?, ?, ?)", failed)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is written inside is committed at the end, or nothing if an error leaves it. One inside another joins it."""
        if self.connection.in_transaction:
            yield self.connection
            return
        with self._explained():
            self.connection.execute("BEGIN")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:  # a full disk has rolled it back already
                    self.connection.execute("ROLLBACK")
                raise

    def require_room(self) -> None:
        """Raise `UserError` while there still is room for what is on its way, rather than when it cannot be kept."""
        require_space(self.path, ROOM)

    # -- reading

    def remembered(self, name: str) -> str | None:
        """The value of a fact that `remember` has kept."""
        return next((value for (value,) in self._read("SELECT value FROM facts WHERE name = ?", (name,))), None)

    def get_many(self, keys: Sequence[str]) -> dict[str, ChatAnswer]:
        """The answers to those of ``keys`` that have one."""
        query = "SELECT * FROM answers WHERE key IN (SELECT value FROM json_each(?))"
        chunks = (json.dumps(keys[start : start + CHUNK]) for start in range(0, len(keys), CHUNK))
        return {row[0]: ChatAnswer(*row) for chunk in chunks for row in self._read(query, (chunk,))}

    def totals(self) -> dict[str, Totals]:
        """What every step asked for and got, in the order in which steps began."""
        rows = self._read(
            "SELECT step, count(*), count(answers.key), coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0), "
            "coalesce(sum(cost), 0.0) FROM requests LEFT JOIN answers USING (key) GROUP BY step ORDER BY min(requests.rowid)"
        )
        return {step: Totals(*counts) for step, *counts in rows}

    def endpoints(self, model: str, besides: str | None = None) -> list[str]:
        """The URLs that answers of the model of that name came from, but for those of step ``besides``, in alphabetical order."""
        query = (
            "SELECT DISTINCT endpoint FROM answers JOIN requests USING (key) "
            "WHERE json_extract(content, '$.model') = ? AND step IS NOT ?"
        )
        return sorted(url for (url,) in self._read(query, (model, besides)))

    def spent(self) -> float:
        """USD for all answers."""
        return float(self._read("SELECT coalesce(sum(cost), 0.0) FROM answers")[0][0])

    def failures(self) -> list[tuple[str, str, str, float]]:
        """``(key, reason, endpoint, time)`` of every request that was refused or kept failing, in order."""
        return self._read("SELECT * FROM failures ORDER BY rowid")

    # -- SQLite

    def _read(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._explained():
            return self.connection.execute(query, values).fetchall()

    def _write(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        with self.transaction() as connection:
            connection.executemany(statement, rows)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """SQLite's errors that are the world's fault, and not ours, as `UserError`."""
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.DatabaseError) as error:
            if type(error) not in (sqlite3.OperationalError, sqlite3.DatabaseError):
                raise
            raise UserError(f"{self.path}: {_explanation(str(error))}") from None


def _explanation(error: str) -> str:
    """What SQLite says, with what to do about it."""
    if "disk is full" in error:
        return "the disk is full; all earlier answers are kept: free some space and the same command goes on"
    if "not a database" in error:
        return "is not a store of answers; choose another place"
    if "malformed" in error:
        return "is damaged (sqlite3 FILE .recover saves what can be read)"
    return f"cannot be used ({error})"


def _locked(path: Path) -> FileLock:
    lock = FileLock(f"{path}.lock", thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{path}: is in use by another process; wait for it to end, or close the run or review that has it open"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    return lock
