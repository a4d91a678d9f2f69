"""Leaves trained by workers, some at a time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import leases
from .attempts import Attempt
from .errors import MtrunError, RegistryError, Stopped
from .events import Event
from .executors import Executor, Handle
from .orders import Order
from .plan import Planned
from .registry import Registry
from .spec import Leaf

POLL_SECONDS = 0.05
STOP_SECONDS = 9.0
"""How long workers have to write a checkpoint when a build is stopped."""


@dataclass
class _Worker:
    """A leaf that is being trained."""

    node: Planned
    attempt: Attempt
    handle: Handle
    claim: contextlib.ExitStack
    started: float = field(default_factory=time.monotonic)
    touched: float = field(default_factory=time.monotonic)
    progress: dict[str, Any] = field(default_factory=dict)


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
    _signal: int = 0
    _waiting: list[Planned] = field(default_factory=list)
    _running: list[_Worker] = field(default_factory=list)
    _crashes: dict[str, int] = field(default_factory=dict)
    _elsewhere: set[str] = field(default_factory=set)

    def train(self, leaves: Sequence[Planned]) -> Iterator[Event]:
        """Train leaves to their ends; those that another build is training are waited for.

        Raise Stopped once `interrupt` was called and the workers have written their checkpoints.
        """
        self._waiting = list(leaves)
        while self._waiting or self._running:
            if self._signal:
                yield from self._stop()
            self.check()
            yield from self._fill()
            for worker in list(self._running):
                yield from self._look(worker)
            time.sleep(POLL_SECONDS)

    def give_up(self) -> None:
        """Start nothing more; what runs goes on to its end."""
        self._waiting.clear()

    def interrupt(self, number: int, frame: object = None) -> None:
        """Take a signal: the first stops the workers with a checkpoint, a second one ends them at once."""
        if self._signal:
            self._kill()
            raise Stopped(number)
        self._signal = number

    def check(self) -> None:
        """Raise Stopped where a signal asked for it."""
        if self._signal:
            raise Stopped(self._signal)

    def _stop(self) -> Iterator[Event]:
        """Stop all workers with a checkpoint, by force those that take too long."""
        for worker in self._running:
            worker.handle.stop()
        deadline = time.monotonic() + STOP_SECONDS
        while any(w.handle.poll() is None for w in self._running) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        self._kill()
        for worker in self._running:
            yield Event("interrupted", worker.node.name, worker.node.id, worker.attempt.progress())

    def _kill(self) -> None:
        for worker in self._running:
            worker.handle.stop(now=True)
            worker.claim.close()

    def _fill(self) -> Iterator[Event]:
        """Start what can be started."""
        for node in list(self._waiting):
            if len(self._running) >= self.jobs:
                return
            with contextlib.ExitStack() as claim:
                try:
                    yield from self._take(node, claim)
                except MtrunError as error:
                    self._waiting.remove(node)
                    yield self._failure(node, [p.render() for p in error.problems])

    def _take(self, node: Planned, claim: contextlib.ExitStack) -> Iterator[Event]:
        """Start a leaf, unless it is finished or another build is at it."""
        lease = claim.enter_context(self.registry.claim(node.id))
        if self._is_finished(node, lease is not None):
            self._waiting.remove(node)
            yield Event("reused", node.name, node.id)
        elif lease is not None:
            started = self._start(node, lease, claim)
            self._waiting.remove(node)
            yield started
        elif node.id not in self._elsewhere:
            self._elsewhere.add(node.id)
            there = leases.holder(self.registry.lease(node.id))
            yield Event("elsewhere", node.name, node.id, {"host": there.host, "pid": there.pid} if there else {})

    def _is_finished(self, node: Planned, is_ours: bool) -> bool:
        """Tell whether a run is there that is not to be replaced; who holds the lease sets a damaged one aside."""
        try:
            run = self.registry.find(node.id)
            if run and is_ours:
                run.predictions()
        except RegistryError:
            if is_ours:
                self.registry.set_aside(node.id)
            return False
        return run is not None and run.manifest["sha256"] != node.replaces

    def _start(self, node: Planned, lease: int, claim: contextlib.ExitStack) -> Event:
        assert isinstance(node.node, Leaf)
        attempt, model = Attempt(self.registry.attempt(node.id)), node.node.model
        resumed = attempt.begin(Order(node.id, node.name, self.project, model, node.replaces, node.trees))
        handle = self.executor.start(attempt.folder, model.resources.threads, lease)
        self._running.append(_Worker(node, attempt, handle, claim.pop_all()))
        return Event("started", node.name, node.id, {"resumed": resumed})

    def _look(self, worker: _Worker) -> Iterator[Event]:
        """Say how far a worker is, or what became of it."""
        node, code = worker.node, worker.handle.poll()
        if code is None:
            yield from self._progress(worker)
            return
        self._running.remove(worker)
        with worker.claim:
            if self._is_finished(node, is_ours=True):
                yield Event("trained", node.name, node.id, {"seconds": round(time.monotonic() - worker.started, 1)})
            else:
                yield self._ended(worker, code)

    def _progress(self, worker: _Worker) -> Iterator[Event]:
        """Keep the lease, and say how far a worker is where that changed."""
        if time.monotonic() - worker.touched > leases.TOUCH_SECONDS:
            worker.touched = time.monotonic()
            leases.touch(self.registry.lease(worker.node.id))
        progress = worker.attempt.progress()
        if progress and progress != worker.progress:
            worker.progress = progress
            yield Event("progress", worker.node.name, worker.node.id, progress)

    def _ended(self, worker: _Worker, code: int) -> Event:
        """Start a crashed worker's leaf again, or give it up."""
        node, problems = worker.node, worker.attempt.problems()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if not problems and (code < 0 or code > 128):  # of a signal; other codes are errors that could not be told
            self._crashes[node.id] = self._crashes.get(node.id, 0) + 1
            if self._crashes[node.id] <= self.retries:
                self._waiting.insert(0, node)
                return Event("retried", node.name, node.id, {"reason": how})
        return self._failure(node, problems or [f"error: the worker ended with {how}; its log is {worker.attempt.log}"])

    def _failure(self, node: Planned, problems: list[str]) -> Event:
        self.failed.add(node.id)
        return Event("failed", node.name, node.id, {"problems": problems})
