"""Topics, items and review decisions, in tables of the same SQLite file as the answers.

A step reads what it needs, asks, and saves everything that came of it in one `State.transaction`; so a killed run finds a round
whole or not at all. Order is always that of the ids, never that in which answers came in.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from ultrafuser.endpoints.store import AnswerStore
from ultrafuser.synth.record import Decision, Item, Level, Status, Topic

TABLES = """
CREATE TABLE topics (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, why TEXT NOT NULL, use TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL,
    rounds INTEGER NOT NULL, provenance TEXT NOT NULL, key TEXT NOT NULL, parent TEXT NOT NULL, level TEXT NOT NULL);
CREATE INDEX topics_by_key ON topics (key);
CREATE TABLE items (
    id TEXT PRIMARY KEY, topic TEXT NOT NULL, kind TEXT NOT NULL, instruction TEXT NOT NULL, original TEXT, response TEXT,
    further TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL, provenance TEXT NOT NULL, slot INTEGER NOT NULL,
    step TEXT NOT NULL, traits TEXT NOT NULL, key TEXT NOT NULL);
CREATE INDEX items_of_topic ON items (topic, status, slot);
CREATE INDEX items_in_order ON items (status, id);
CREATE INDEX items_waiting ON items (status, step, id);
CREATE INDEX items_by_key ON items (key);
CREATE TABLE decisions (
    key TEXT PRIMARY KEY, subject TEXT NOT NULL, action TEXT NOT NULL, text TEXT NOT NULL, note TEXT NOT NULL);
CREATE TABLE position (step TEXT NOT NULL, wanted TEXT NOT NULL);
"""
TOPIC_COLUMNS = ("id", "name", "why", "use", "status", "reason", "rounds", "provenance", "key")
ITEM_COLUMNS = (
    *("id", "kind", "instruction", "original", "response", "further", "status", "reason", "provenance"),
    *("slot", "step", "traits", "key"),
)
_SELECT_ITEMS = (
    f"SELECT {', '.join(f'i.{column}' for column in ITEM_COLUMNS)}, s.name, m.name FROM items i "
    "JOIN topics s ON s.id = i.topic JOIN topics m ON m.id = s.parent"
)


class State:
    """The tables in ``store``. Raises `UserError` where they cannot be written (a full disk)."""

    def __init__(self, store: AnswerStore) -> None:
        self.connection, self.transaction, self._unclaim = store.connection, store.transaction, store.unclaim
        if not self.exists(store):
            with self.transaction():
                for statement in filter(str.strip, TABLES.split(";")):
                    self.connection.execute(statement)

    @staticmethod
    def exists(store: AnswerStore) -> bool:
        """Has ``store`` the tables? One that is only to be read must have them."""
        return bool(store.connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'position'").fetchone())

    # -- topics

    def topics(self, level: Level | None = None, *, below: str = "", key: str = "", active: bool = True) -> Iterator[Topic]:
        """Topics in order, the active ones unless told otherwise: of one ``level``, ``below`` another's id, of that ``key``."""
        where, values = _where({"level": level, "key": key, "status": "active" if active else None}, below)
        query = f"SELECT {', '.join(TOPIC_COLUMNS)} FROM topics {where} ORDER BY id"
        for row in self.connection.execute(query, values):
            fields = dict(zip(TOPIC_COLUMNS, row, strict=True))
            yield Topic(**fields | {"provenance": json.loads(fields["provenance"])})

    def save_topics(self, topics: Iterable[Topic]) -> None:
        """Insert or replace; call it inside a `transaction`."""
        rows = ({"parent": topic.parent, "level": topic.level, **vars(topic)} for topic in topics)
        self._replace("topics", (*TOPIC_COLUMNS, "parent", "level"), rows)

    # -- items

    def items(
        self, status: Status | None = None, *, step: str = "", below: str = "", key: str = "", limit: int = -1
    ) -> Iterator[Item]:
        """Items in order, streamed: of one ``status``, at one ``step``, ``below`` the id of a topic, of that ``key``."""
        where, values = _where({"i.status": status, "i.step": step, "i.key": key}, below, "i.id")
        for row in self.connection.execute(f"{_SELECT_ITEMS} {where} ORDER BY i.id LIMIT {limit}", values):
            yield _item(row)

    def save_items(self, items: Iterable[Item]) -> None:
        """Insert or replace; call it inside a `transaction`."""
        self._replace("items", (*ITEM_COLUMNS, "topic"), ({"topic": item.topic, **vars(item)} for item in items))

    def taken(self) -> dict[str, set[int]]:
        """Per sub-topic the places of its quota that an item holds."""
        taken: dict[str, set[int]] = {}
        for topic, slot in self.connection.execute("SELECT topic, slot FROM items WHERE status != 'dropped'"):
            taken.setdefault(topic, set()).add(slot)
        return taken

    def written(self) -> dict[str, int]:
        """Per sub-topic how many items were ever written for it."""
        return dict(self.connection.execute("SELECT topic, COUNT(*) FROM items GROUP BY topic"))

    def waiting(self, step: str) -> int:
        """How many items wait for a step."""
        query = "SELECT COUNT(*) FROM items WHERE status = 'pending' AND step = ?"
        return int(self.connection.execute(query, [step]).fetchone()[0])

    def counts(self) -> Counter[tuple[str, str]]:
        """How many items per (sub-topic id, status)."""
        query = "SELECT topic, status, COUNT(*) FROM items GROUP BY topic, status"
        return Counter({(topic, status): count for topic, status, count in self.connection.execute(query)})

    # -- decisions

    def decide(self, *decisions: Decision) -> None:
        """Keep decisions at once; a later one on the same content replaces an earlier one. They take effect in the next run."""
        with self.transaction():
            self._replace("decisions", ("key", "subject", "action", "text", "note"), map(asdict, decisions))

    def forget(self, key: str) -> None:
        """Take back what was decided about the content of that ``key``."""
        with self.transaction():
            self.connection.execute("DELETE FROM decisions WHERE key = ?", [key])

    def decisions(self) -> dict[str, Decision]:
        """All decisions by the key of the content that they are about."""
        rows = self.connection.execute("SELECT key, subject, action, text, note FROM decisions ORDER BY key")
        return {key: Decision(key, subject, action, json.loads(text), note) for key, subject, action, text, note in rows}

    # -- where the run stands

    @property
    def position(self) -> tuple[str, str]:
        """The step that the run is at and what was wanted when it got there; empty before the first."""
        row = self.connection.execute("SELECT step, wanted FROM position").fetchone()
        return row or ("", "")

    def move_to(self, step: str, wanted: str) -> None:
        """Note the step that comes next; call it inside a `transaction`."""
        self.connection.execute("DELETE FROM position")
        self.connection.execute("INSERT INTO position VALUES (?, ?)", [step, wanted])

    def clear(self) -> None:
        """Forget topics and items, and which recipe they are of, to make them anew from the answers. Decisions stay."""
        with self.transaction():
            for table in ("topics", "items", "position"):
                self.connection.execute(f"DELETE FROM {table}")
            self._unclaim()

    def _replace(self, table: str, columns: tuple[str, ...], rows: Iterable[dict[str, Any]]) -> None:
        places = ", ".join("?" * len(columns))
        values = ([_sqlite(row[column]) for column in columns] for row in rows)
        self.connection.executemany(f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}) VALUES ({places})", values)


def _where(equal: dict[str, str | None], below: str, id_column: str = "id") -> tuple[str, list[str]]:
    """The condition that columns have these values, where there is one to have, and that the id is below another."""
    conditions = [f"{column} = ?" for column, value in equal.items() if value]
    values = [value for value in equal.values() if value]
    if below:
        conditions += [f"{id_column} > ?", f"{id_column} < ?"]
        values += [f"{below}/", f"{below}0"]  # "0" is the character after "/"
    return ("WHERE " + " AND ".join(conditions) if conditions else ""), values


def _sqlite(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def _item(row: tuple[Any, ...]) -> Item:
    *columns, sub_topic, meta_topic = row
    fields = dict(zip(ITEM_COLUMNS, columns, strict=True))
    for name in ("further", "provenance", "traits"):
        fields[name] = json.loads(fields[name])
    return Item(domain=fields["id"].partition("/")[0], meta_topic=meta_topic, sub_topic=sub_topic, **fields)
