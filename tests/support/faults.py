"""A machine that fails: every file operation below a folder is counted, and at one of them something happens.

Python's audit hooks see what opens, makes, renames and removes, whoever does it; writes, syncs and closes, for which
there are none, are wrapped. Hooks cannot be taken away again, so that all of it happens in a child process.
"""

from __future__ import annotations

import errno
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

AUDITED = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.utime", "os.truncate", "os.link", "os.symlink",
           "os.listdir", "os.scandir"}
WRAPPED = ("write", "pwrite", "fsync", "fdatasync", "ftruncate", "close")
DIED = 77


@dataclass
class Operations:
    """Counts file operations below a folder; at number `at` (from 1) it dies, or refuses with an error number."""

    root: Path
    at: int = 0
    error: int = 0
    """Error number that is raised; 0 to die."""
    lasting: bool = False
    """The error comes at all later operations that need room on the disk, too."""
    half: bool = False
    """A write is cut in the middle first."""
    seen: list[tuple[str, str]] = field(default_factory=list)
    _paths: dict[int, str] = field(default_factory=dict)
    _new: set[int] = field(default_factory=set)
    """Descriptors of files that may grow; writing over the start of an older one needs no room."""

    def install(self) -> None:
        """Watch this process from now on."""
        sys.addaudithook(self._hook)
        opened = os.open

        def opening(path: Any, *more: Any, **named: Any) -> int:
            descriptor = opened(path, *more, **named)
            self._paths[descriptor] = os.fspath(path)
            (self._new.add if more and more[0] & os.O_CREAT else self._new.discard)(descriptor)
            return descriptor

        os.open = opening
        for name in WRAPPED:
            setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in AUDITED and isinstance(arguments[0], str | os.PathLike):
            path = os.fspath(arguments[0])
            is_new = event != "open" or bool(arguments[2] & os.O_CREAT)
            self._point(event + ("+" if event == "open" and is_new else ""), path, is_new, path)

    def _wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(descriptor: int, *more: Any) -> Any:
            path = self._paths.get(descriptor, "")
            if name == "write" and self.half and len(self.seen) + 1 == self.at and path.startswith(str(self.root)):
                call(descriptor, bytes(more[0])[: len(more[0]) // 2])
            if name == "close":
                self._paths.pop(descriptor, None)
            try:
                self._point(name, path, name != "close" and descriptor in self._new)
            except OSError:
                if name == "close":
                    call(descriptor)
                raise
            return call(descriptor, *more)
        return wrapper

    def _point(self, name: str, path: str, needs_room: bool, said: str | None = None) -> None:
        """Count an operation and let it fail where it is its turn; only an error of a call by name says the name."""
        if not path.startswith(str(self.root)):
            return
        self.seen.append((name, path))
        number = len(self.seen)
        lasting = self.lasting and number > self.at > 0 and needs_room and name not in ("os.remove", "os.rmdir")
        if number == self.at or lasting:
            if not self.error:
                os._exit(DIED)
            raise OSError(self.error, os.strerror(self.error), *([] if said is None else [said]))


@dataclass(frozen=True)
class Outcome:
    """What became of a child process."""

    died: bool
    value: Any = None
    error: BaseException | None = None
    seen: tuple[tuple[str, str], ...] = ()


def run(work: Callable[[], Any], operations: Operations) -> Outcome:
    """Do some work in a child process of a failing machine."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.close(reading)
            operations.install()
            value, error = None, None
            try:
                value = work()
            except Exception as caught:
                error = caught
            operations.root = Path("/nowhere")
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump((value, error, tuple(operations.seen)), pipe)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == DIED:
        return Outcome(died=True)
    assert code == 0, f"the child ended with {code}"
    return Outcome(False, *pickle.loads(told))


# A power cut: what was not synced may be lost ---------------------------------------------------------------------


@dataclass
class Node:
    """A file or a folder: as it is, and as it is sure to be after a power cut."""

    data: bytes | dict[str, Node]
    sure: bytes | dict[str, Node] | None = None


@dataclass
class Disk:
    """Replays a recording of operations and tells what may be left of it at any time."""

    top: Node = field(default_factory=lambda: Node({}, {}))
    _open: dict[int, Node] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> Disk:
        """Return a disk that holds a folder, all of it synced."""
        disk = cls()
        disk.top = _node(folder)
        return disk

    def apply(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Do one recorded operation."""
        if name == "open":
            path, descriptor, flags = arguments
            folder, base = self._folder(path)
            if flags & os.O_CREAT and base not in folder:
                folder[base] = Node(b"")
            self._open[descriptor] = folder[base] if base else self.top
        elif name == "write":
            node = self._open[arguments[0]]
            node.data += arguments[1]  # type: ignore[operator]
        elif name == "fsync":
            node = self._open[arguments[0]]
            node.sure = dict(node.data) if isinstance(node.data, dict) else node.data
        elif name == "mkdir":
            folder, base = self._folder(arguments[0])
            folder[base] = Node({}, {})
        elif name in ("rename", "replace"):
            (old, was), (new, will) = map(self._folder, arguments)
            new[will] = old.pop(was)
        elif name in ("unlink", "rmdir"):
            folder, base = self._folder(arguments[0])
            del folder[base]

    def _folder(self, path: str) -> tuple[dict[str, Node], str]:
        *above, base = path.split("/") if path else [""]
        node = self.top
        for name in above:
            node = node.data[name]  # type: ignore[index]
        assert isinstance(node.data, dict)
        return node.data, base

    def left(self, target: Path, keep: Callable[[], float]) -> None:
        """Write what a power cut leaves; `keep` gives the share of what was not synced that is kept, each time anew."""
        _leave(self.top, target, keep)


def _node(path: Path) -> Node:
    if path.is_dir():
        inside = {p.name: _node(p) for p in path.iterdir()}
        return Node(inside, dict(inside))
    return Node(path.read_bytes(), path.read_bytes())


def _leave(node: Node, target: Path, keep: Callable[[], float]) -> None:
    if isinstance(node.data, bytes):
        sure = node.sure if isinstance(node.sure, bytes) else b""
        target.write_bytes(sure + node.data[len(sure):][: round(keep() * len(node.data[len(sure):]))])
        return
    sure_ = node.sure if isinstance(node.sure, dict) else {}
    target.mkdir()
    for name in sorted({*node.data, *sure_}):
        now, before = node.data.get(name), sure_.get(name)
        chosen = now if now is before or keep() >= 0.5 else before
        if chosen is not None:
            _leave(chosen, target / name, keep)


def recorded(work: Callable[[], Any], root: Path) -> list[tuple[str, tuple[Any, ...]]]:
    """Do some work in a child process and return its operations on the disk below a folder, with their data."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            tape = list(_taped(work, root))
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(tape, pipe)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        tape = pickle.load(pipe)
    os.waitpid(child, 0)
    return tape


def _taped(work: Callable[[], Any], root: Path) -> Iterator[tuple[str, tuple[Any, ...]]]:
    tape: list[tuple[str, tuple[Any, ...]]] = []
    ours: set[int] = set()

    def inner(path: Any) -> str:
        text = os.fspath(path)
        return os.path.relpath(text, root).removeprefix(".") if text.startswith(str(root)) else "?"

    def wrap(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **named: Any) -> Any:
            result = call(*arguments, **named)
            if name == "open":
                path = inner(arguments[0])
                (ours.discard if path == "?" else ours.add)(result)
                if path != "?":
                    tape.append((name, (path, result, arguments[1])))
            elif name in ("write", "fsync"):
                if arguments[0] in ours:
                    data = (bytes(arguments[1])[:result],) if name == "write" else ()
                    tape.append((name, (arguments[0], *data)))
            else:
                paths = [inner(path) for path in arguments[: 2 if name in ("rename", "replace") else 1]]
                assert "dir_fd" not in named or named["dir_fd"] is None, "relative paths are not recorded"
                if "?" not in paths:
                    tape.append((name, tuple(paths)))
            return result
        return wrapper

    for name in ("open", "write", "fsync", "mkdir", "rename", "replace", "unlink", "rmdir"):
        setattr(os, name, wrap(name, getattr(os, name)))
    work()
    yield from tape


NO_ROOM, NO_LUCK = errno.ENOSPC, errno.EIO
