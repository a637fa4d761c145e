"""Plain values as bytes: how job, reports, arguments and results go from process to process.

Everything that is decoded may come from a hostile program, so decoding only ever makes plain values: those of the types below,
exactly of these types whatever subclass (with whatever ``__eq__``) went in, and iterators over them. For any other object
``refer`` may give a number, which ``resolve`` turns into a stand-in.
A value is ``TAG SIZE : CONTENT``, where SIZE counts bytes, or in a container the values that follow.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

UNICODE = ("utf-8", "surrogatepass")
BYTES: dict[type, tuple[bytes, Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    type(None): (b"N", lambda value: b"", lambda content: None),
    bool: (b"B", lambda value: b"1" if value else b"", bool),
    int: (b"I", lambda value: int.__format__(value, "x").encode(), lambda content: int(content, 16)),
    float: (b"F", lambda value: float.hex(value).encode(), lambda content: float.fromhex(content.decode())),
    str: (b"S", lambda value: str.encode(value, *UNICODE), lambda content: content.decode(*UNICODE)),
    bytes: (b"Y", lambda value: bytes.__getitem__(value, slice(None)), bytes),
    bytearray: (b"A", bytes, bytearray),
}  # fmt: skip
CONTAINERS: dict[type, tuple[bytes, Callable[[Any], Iterable[Any]], Callable[[list[Any]], Any]]] = {
    list: (b"l", list.__iter__, list),
    tuple: (b"t", tuple.__iter__, tuple),
    dict: (b"d", dict.items, dict),
    set: (b"s", set.__iter__, set),
    frozenset: (b"f", frozenset.__iter__, frozenset),
    complex: (b"c", lambda value: (value.real, value.imag), lambda items: complex(*items)),
    range: (b"r", lambda value: (value.start, value.stop, value.step), lambda items: range(*items)),
}
ITERATOR, REFERENCE = b"i", b"R"
FROM_BYTES = {tag: make for tag, _, make in BYTES.values()}
FROM_ITEMS = {tag: make for tag, _, make in CONTAINERS.values()} | {ITERATOR: iter}


def encode(value: Any, refer: Callable[[Any], int | None] = lambda value: None) -> bytes:
    """Raises TypeError for what is neither plain nor referred to."""
    pieces: list[bytes] = []
    _write(value, pieces.append, refer)
    return b"".join(pieces)


def _write(value: Any, put: Callable[[bytes], None], refer: Callable[[Any], int | None]) -> None:
    kind = _kind(value)
    if kind in BYTES:
        tag, to_bytes, _ = BYTES[kind]
        content = to_bytes(value)
        put(b"%c%d:%s" % (tag, len(content), content))
        return
    if kind in CONTAINERS:
        tag, to_items, _ = CONTAINERS[kind]
        items = list(to_items(value))
    elif (reference := refer(value)) is not None:
        tag, items = REFERENCE, [reference]
    elif hasattr(type(value), "__next__"):
        tag, items = ITERATOR, list(value)
    else:
        raise TypeError(f"a value of type '{type(value).__name__}' cannot go from process to process")
    put(b"%c%d:" % (tag, len(items)))
    for item in items:
        _write(item, put, refer)


def _kind(value: Any) -> type:
    """The plain type that ``value`` is, or is of a subclass of."""
    kind = type(value)
    if kind in BYTES or kind in CONTAINERS:
        return kind
    return next((plain for plain in (*BYTES, *CONTAINERS) if issubclass(kind, plain)), kind)


def decode(content: bytes, resolve: Callable[[int], Any] | None = None) -> Any:
    """Raises ValueError, KeyError, TypeError, RecursionError or MemoryError for bytes that `encode` did not make."""
    value, end = _read(content, 0, resolve)
    if end != len(content):
        raise ValueError("bytes after the end of a value")
    return value


def _read(content: bytes, start: int, resolve: Callable[[int], Any] | None) -> tuple[Any, int]:
    tag = content[start : start + 1]
    colon = content.index(b":", start)
    size, end = int(content[start + 1 : colon]), colon + 1
    if tag in FROM_BYTES:
        if not 0 <= size <= len(content) - end:
            raise ValueError("a value is cut off")
        return FROM_BYTES[tag](content[end : end + size]), end + size
    items = []
    for _ in range(size):
        item, end = _read(content, end, resolve)
        items.append(item)
    if tag == REFERENCE and resolve is not None:
        return resolve(*items), end
    return FROM_ITEMS[tag](items), end
