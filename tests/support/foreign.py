"""Content that a stranger made: values that are changed at random, and seals that fit them all the same."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink", "os.chmod"}
STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect"}


NESTED = "@nested@"
"""Stands for a list in which lists are nested a hundred thousand deep."""


def deep(levels: int) -> Any:
    """Return lists in lists."""
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


JUNK: list[Callable[[], Any]] = [
    lambda: None, lambda: True, lambda: -1, lambda: 0, lambda: 1, lambda: 10**30, lambda: -(2**63), lambda: 2**63,
    lambda: float("nan"), lambda: float("inf"), lambda: 0.5, lambda: 1e308, lambda: "", lambda: "x", lambda: "../../x",
    lambda: "/etc/passwd", lambda: "a\x00b",
    lambda: "\ud800", lambda: "x" * 5000, list, dict, lambda: [None], lambda: [1, "a", {}],
    lambda: {"a": 1}, lambda: {"": None}, lambda: deep(50), lambda: NESTED, lambda: "0" * 12, lambda: "0" * 64,
]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the container and the key of every value inside."""
    todo = [value]
    while todo:
        held = todo.pop()
        keys = list(held) if isinstance(held, dict) else range(len(held)) if isinstance(held, list) else ()
        for key in keys:
            yield held, key
            todo.append(held[key])


def nudged(chance: random.Random, value: Any) -> Any:
    """Return a value of the same type that is another."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return value + chance.choice([-1, 1, 7])
    if isinstance(value, float):
        return chance.choice([round(value + chance.uniform(-0.2, 0.2), 6), -value, 1.0, 0.0])
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{12,64}", value):
        return "".join(chance.choice("0123456789abcdef") for _ in value)
    if isinstance(value, str):
        return value + chance.choice(["x", " ", "/../x", "@seed=1", "\u202e"])
    return JUNK[chance.randrange(len(JUNK))]()


def mutate(chance: random.Random, value: Any) -> Any:
    """Change one place inside a value of JSON: another value, none, two exchanged, one renamed; return the value."""
    found = list(places(value))
    if not found or chance.random() < 0.01:
        return JUNK[chance.randrange(len(JUNK))]()
    shallow = [pair for pair in found if pair[0] is value]
    held, key = chance.choice(shallow if chance.random() < 0.3 else found)
    how = chance.random()
    if how < 0.3:
        held[key] = JUNK[chance.randrange(len(JUNK))]()
    elif how < 0.6:
        held[key] = nudged(chance, held[key])
    elif how < 0.7:
        del held[key]
    elif how < 0.9:
        alike = [pair for pair in found if type(pair[0][pair[1]]) is type(held[key]) and pair != (held, key)]
        if alike:
            other, place = chance.choice(alike)
            held[key], other[place] = other[place], held[key]
            if _is_cyclic(value):
                held[key], other[place] = other[place], held[key]
    elif isinstance(held, dict):
        held[nudged(chance, key)] = held.pop(key)
    else:
        held.insert(key, held[key])
    return value


def _is_cyclic(value: Any) -> bool:
    """Tell whether a value cannot be written since it contains itself."""
    try:
        json.dumps(value)
    except ValueError:
        return True
    return False


def written(chance: random.Random, value: Any) -> bytes:
    """Return JSON, sometimes with a key twice, or with a number that is too large for a float."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
    lines = text.split("\n")
    scalars = [i for i, line in enumerate(lines) if re.fullmatch(r' +"[^"]*": [^\[{]*,', line)]
    if scalars and chance.random() < 0.05:
        line = lines[chance.choice(scalars)]
        lines.insert(chance.choice(scalars), line.split(": ")[0] + ": " + chance.choice(["1", "null", '"x"']) + ",")
    text = "\n".join(lines).replace("Infinity", "1e400").replace(f'"{NESTED}"', "[" * 100_000 + "]" * 100_000)
    return f"{text}\n".encode(errors="surrogatepass")


def with_checksum(above: bytes) -> bytes:
    """Return JSON of a table with the seal of a manifest as its last key, whatever the table says."""
    head = above.rstrip().removesuffix(b"}").rstrip() + b",\n"
    return head + f' "sha256": "{hashlib.sha256(head).hexdigest()}"\n}}\n'.encode()


def cached(name: str, data: bytes) -> bytes:
    """Return the content of a cache's file of some name with its seal."""
    return hashlib.sha256(name.encode() + b"\n" + data).hexdigest().encode() + b"\n" + data


class Watch:
    """Takes note of what this process writes outside of some folders, and of programs that it starts."""

    def __init__(self) -> None:
        self.allowed: tuple[str, ...] | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.allowed is None:
            return
        if event in STARTS:
            self.seen.append(f"{event} {arguments[:2]}")
        flags = arguments[2] if event == "open" and isinstance(arguments[2], int) else 0
        is_write = event in WRITES or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if not is_write or not isinstance(arguments[0], str | os.PathLike):
            return
        if event == "open" and os.path.isdir(arguments[0]):
            return  # a temporary file without a name
        names = arguments[:2] if event in ("os.rename", "os.link", "os.symlink") else arguments[:1]
        descriptor = arguments[-1] if event in ("os.remove", "os.rmdir", "os.mkdir") else -1
        base = os.getcwd() if descriptor < 0 else os.readlink(f"/proc/self/fd/{descriptor}")
        for name in names:
            path = os.path.normpath(os.path.join(base, os.fspath(name)))
            if not path.startswith(self.allowed) and "__pycache__" not in path and path != os.devnull:
                self.seen.append(f"{event} {path}")

    @contextmanager
    def only(self, *folders: Path) -> Iterator[None]:
        """Check that within the block nothing is written but in these folders and mtrun's temporary ones."""
        self.seen, self.allowed = [], (*(str(folder) for folder in folders),
                                       os.path.join(tempfile.gettempdir(), "mtrun-"))
        try:
            yield
        finally:
            self.allowed = None
        assert not self.seen, self.seen
