"""Reads training data, `{"domain": "code", "messages": [{"role": .., "content": ..}, ..]}`, and refuses what is broken.

A conversation is an optional system message, then user and assistant in turns, ending with the assistant's. The short form
`{"domain", "prompt", "response"}` stands for one turn. A mistake is reported as one line that names file, line and value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrafuser.data.rows import read_rows
from ultrafuser.errors import UserError, did_you_mean, plural
from ultrafuser.io import parse_json
from ultrafuser.refused import short
from ultrafuser.tokens.encode import require_unicode

ROLES = ("system", "user", "assistant")
EXPECTED = 'expected {"domain": .., "messages": [{"role": .., "content": ..}, ..]}'


@dataclass(frozen=True)
class Conversation:
    """One checked example; ``where`` says where it came from, like ``"train.jsonl line 12"``."""

    domain: str
    messages: list[dict[str, str]]
    where: str


def read_conversations(
    path_or_hub_id: str | Path | Sequence[str | Path], *, domains: Sequence[str] | None = None, leave_out: str | None = None
) -> list[Conversation]:
    """Read one source, or several in order: JSON lines, Parquet, a directory or a hub dataset (see `read_rows`).

    With ``domains``, every example's domain must be one of them, and every one must have an example. Records in which the field
    ``leave_out`` is set are skipped. Raises `UserError` for the first mistake, saying how many more bad lines the file has.
    """
    sources = [path_or_hub_id] if isinstance(path_or_hub_id, str | Path) else list(path_or_hub_id)
    conversations = [conversation for source in sources for conversation in _read_one(source, domains, leave_out)]
    counts = Counter(conversation.domain for conversation in conversations)
    for domain in domains or ():
        if not counts[domain]:
            found = ", ".join(f"{name} {count}" for name, count in counts.items())
            names = ", ".join(map(str, sources))
            raise UserError(f"{names}: domain '{domain}' has no example (found: {found}); add some or leave the domain out")
    return conversations


def require_domain(domain: str, domains: Sequence[str], where: str) -> None:
    """Raise `UserError` unless ``domain`` is one of ``domains``."""
    if domain not in domains:
        raise UserError(f"domain '{domain}' in {where} is not one of {', '.join(domains)}{did_you_mean(domain, domains)}")


def read_messages(where: str, row: Any) -> list[dict[str, str]]:
    """The messages of one row of `read_rows`, whatever its domain. Raises `UserError` for a row that cannot be trained on."""
    return _messages(where, _record(where, row))


def _read_one(source: str | Path, domains: Sequence[str] | None, leave_out: str | None) -> list[Conversation]:
    good: list[Conversation] = []
    bad: list[str] = []
    for where, row in read_rows(source):
        try:
            record = _record(where, row)
            if not (leave_out and record.get(leave_out)):
                good.append(_conversation(where, record, domains))
        except UserError as error:
            bad.append(str(error))
    if bad:
        more = f" (and {plural(len(bad) - 1, 'more bad line')})" if len(bad) > 1 else ""
        raise UserError(bad[0] + more)
    if not good:
        raise UserError(f"{source}: holds no conversation; {EXPECTED}, one a line")
    return good


def _conversation(where: str, record: dict[str, Any], domains: Sequence[str] | None) -> Conversation:
    domain = record.get("domain")
    if domain is None:
        raise UserError(f"{where}: has no 'domain'; {EXPECTED}")
    if not isinstance(domain, str) or not domain.strip():
        raise UserError(f"{where}: 'domain' is {short(domain)}; it must be a non-empty string")
    if domains is not None:
        require_domain(domain, domains, where)
    return Conversation(domain, _messages(where, record), where)


def _record(where: str, row: Any) -> dict[str, Any]:
    record = _decode(where, row) if isinstance(row, bytes) else row
    if not isinstance(record, dict):
        raise UserError(f"{where}: is {short(record)}, not an object; {EXPECTED}")
    return record


def _decode(where: str, line: bytes) -> Any:
    try:
        return parse_json(line)
    except ValueError as error:
        text = short(line.strip().decode(errors="replace"))
        raise UserError(f"{where}: is not valid JSON ({error}): {text}; one object a line is expected") from None


def _messages(where: str, record: dict[str, Any]) -> list[dict[str, str]]:
    raw = record.get("messages")
    if raw is None:
        raw = _from_short_form(where, record)
    if not isinstance(raw, list) or not raw:
        raise UserError(f"{where}: 'messages' is {short(raw)}; it must be a list with at least one question and its answer")
    messages = [_message(f"{where} message {number}", message) for number, message in enumerate(raw, start=1)]
    _require_turns(where, [message["role"] for message in messages])
    return messages


def _from_short_form(where: str, record: dict[str, Any]) -> list[dict[str, Any]]:
    if record.get("prompt") is None:
        raise UserError(f"{where}: has no 'messages' (keys: {', '.join(record)}); {EXPECTED}")
    if not record.get("response"):
        raise UserError(f"{where}: has no 'response'; add one or drop the line")
    return [{"role": "user", "content": record["prompt"]}, {"role": "assistant", "content": record["response"]}]


def _message(where: str, message: Any) -> dict[str, str]:
    if not isinstance(message, dict):
        raise UserError(f'{where}: is {short(message)}, not an object {{"role": .., "content": ..}}')
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        close = did_you_mean(role, ROLES) if isinstance(role, str) else ""
        raise UserError(f"{where}: role {short(role)} is not one of {', '.join(ROLES)}{close}")
    if not isinstance(content, str) or not content.strip():
        raise UserError(f"{where}: the {role}'s content is {short(content)}; it must be a non-empty string")
    require_unicode(content, f"{where}: the {role}'s content")
    return {"role": role, "content": content}


def _require_turns(where: str, roles: list[str]) -> None:
    first = 1 if roles[0] == "system" else 0
    for place in range(first, len(roles)):
        expected = "assistant" if (place - first) % 2 else "user"
        if roles[place] != expected:
            raise UserError(
                f"{where} message {place + 1}: is the {roles[place]}'s where the {expected}'s must be; "
                "a system message may only come first, then user and assistant take turns"
            )
    if roles[-1] != "assistant":
        raise UserError(f"{where}: has no response, the last message is the {roles[-1]}'s; end with the assistant's")
