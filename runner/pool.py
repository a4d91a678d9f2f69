"""Leaves trained by workers, some at a time."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .errors import RegistryError, StorageError
from .events import Event
from .executors import Executor, Handle
from .files import json_bytes, reported, write_bytes
from .parts import plain_dump
from .plan import Planned
from .registry import Registry
from .spec import Leaf

POLL_SECONDS = 0.05
STOP_SECONDS = 10.0
"""How long workers have to write a checkpoint when a build is stopped."""


@dataclass
class _Worker:
    """A leaf that is being trained."""

    node: Planned
    attempt: Path
    handle: Handle
    claim: contextlib.ExitStack
    started: float = field(default_factory=time.monotonic)
    progress: bytes = b""


@dataclass
class Pool:
    """Starts workers, at most `jobs` at a time, and learns from the registry what became of them."""

    registry: Registry
    project: Path
    executor: Executor
    jobs: int
    retries: int = 1
    """How often a leaf whose worker crashed is started again; one that failed with an error is not."""
    failed: set[str] = field(default_factory=set)
    _waiting: list[Planned] = field(default_factory=list)
    _running: list[_Worker] = field(default_factory=list)
    _crashes: dict[str, int] = field(default_factory=dict)
    _elsewhere: set[str] = field(default_factory=set)

    def train(self, leaves: Sequence[Planned]) -> Iterator[Event]:
        """Train leaves to their ends; those that another build is training are waited for."""
        self._waiting = list(leaves)
        while self._waiting or self._running:
            yield from self._fill()
            for worker in list(self._running):
                yield from self._look(worker)
            time.sleep(POLL_SECONDS)

    def give_up(self) -> None:
        """Start nothing more; what runs goes on to its end."""
        self._waiting.clear()

    def stop(self) -> None:
        """Stop all workers with a checkpoint, by force those that take too long; an interrupt meanwhile ends all."""
        deadline = time.monotonic() + STOP_SECONDS
        try:
            for worker in self._running:
                worker.handle.stop()
            while any(w.handle.poll() is None for w in self._running) and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
        finally:
            for worker in self._running:
                worker.handle.stop(now=True)
                worker.claim.close()

    def _fill(self) -> Iterator[Event]:
        """Start what can be started."""
        for node in list(self._waiting):
            if len(self._running) >= self.jobs:
                return
            claim = contextlib.ExitStack()
            try:
                held = claim.enter_context(self.registry.claim(node.id))
                if self._is_finished(node):
                    self._waiting.remove(node)
                    claim.close()
                    yield Event("reused", node.name, node.id)
                elif held:
                    self._waiting.remove(node)
                    yield self._start(node, claim)
                else:
                    claim.close()
                    if node.id not in self._elsewhere:
                        self._elsewhere.add(node.id)
                        yield Event("elsewhere", node.name, node.id)
            except StorageError as error:
                claim.close()
                self._waiting.remove(node)
                yield self._failure(node, [p.render() for p in error.problems])

    def _is_finished(self, node: Planned) -> bool:
        """Tell whether a run is there; a damaged one is set aside."""
        try:
            return self.registry.find(node.id) is not None
        except RegistryError:
            self.registry.set_aside(node.id)
            return False

    def _start(self, node: Planned, claim: contextlib.ExitStack) -> Event:
        assert isinstance(node.node, Leaf)
        attempt, model = self.registry.attempt(node.id), node.node.model
        with reported("make", attempt):
            attempt.mkdir(parents=True, exist_ok=True)
        order = {"id": node.id, "name": node.name, "project": str(self.project), "model": plain_dump(model)}
        write_bytes(attempt / "task.json", json_bytes(order))
        resumed = (attempt / "checkpoint.safetensors").exists()
        handle = self.executor.start(attempt, model.resources.threads)
        self._running.append(_Worker(node, attempt, handle, claim))
        return Event("started", node.name, node.id, {"resumed": resumed})

    def _look(self, worker: _Worker) -> Iterator[Event]:
        """Say how far a worker is, or what became of it."""
        node, code = worker.node, worker.handle.poll()
        if code is None:
            with contextlib.suppress(OSError):
                text = (worker.attempt / "progress.json").read_bytes()
                if text != worker.progress:
                    worker.progress = text
                    yield Event("progress", node.name, node.id, json.loads(text))
            return
        self._running.remove(worker)
        finished = self._is_finished(node)
        worker.claim.close()
        seconds = round(time.monotonic() - worker.started, 1)
        if finished:
            yield Event("trained", node.name, node.id, {"seconds": seconds})
        else:
            yield self._ended(worker, code)

    def _ended(self, worker: _Worker, code: int) -> Event:
        """Start a crashed worker's leaf again, or give it up."""
        node = worker.node
        try:
            problems = json.loads((worker.attempt / "error.json").read_bytes())["problems"]
        except (OSError, ValueError):
            self._crashes[node.id] = self._crashes.get(node.id, 0) + 1
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            if self._crashes[node.id] <= self.retries:
                self._waiting.insert(0, node)
                return Event("retried", node.name, node.id, {"reason": how})
            problems = [f"error: the worker ended with {how}; its log is {worker.attempt / 'log.txt'}"]
        return self._failure(node, problems)

    def _failure(self, node: Planned, problems: list[str]) -> Event:
        self.failed.add(node.id)
        return Event("failed", node.name, node.id, {"problems": problems})
