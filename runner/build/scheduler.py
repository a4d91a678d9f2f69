"""Scheduler: trains leaves in workers, a limited number at a time."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import MtrunError, RegistryError, Stopped
from ..parts.discovery import find
from ..plan.plan import PlannedNode
from ..registry import lease as leases
from ..registry.attempt import Attempt
from ..registry.registry import Registry
from ..specs.identity import fingerprints
from ..specs.job import TrainingJob
from ..specs.spec import Leaf, Model
from ..worker.executors import Executor, Handle, Work
from .events import Event

POLL_SECONDS = 0.05

EACH_SECONDS, LONGEST_SECONDS = 0.005, 1.0
"""Additional polling interval per worker, and its maximum, so that many workers do not overload the file system."""

STOP_SECONDS = 9.0
"""How long workers may take to write a checkpoint when a build is stopped."""

SHARING_SECONDS = 60.0
"""How long a run from another machine may take to appear on a shared file system."""

STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Exit codes of a worker that was asked to stop and wrote a checkpoint."""


@dataclass
class _Worker:
    """A leaf in training."""

    node: PlannedNode
    attempt: Attempt
    handle: Handle
    claim: contextlib.ExitStack
    started: float = field(default_factory=time.monotonic)
    touched: float = field(default_factory=time.monotonic)
    seen: float = field(default_factory=time.monotonic)
    """Time of the last poll at which it ran."""
    progress: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    """Step at which this worker started or resumed the leaf."""
    is_withdrawn: bool = False
    """Whether it was removed from a queue before it ran."""

    def facts(self, code: int) -> dict[str, Any]:
        """Return host, reason of the end, peak memory and log of a worker that has ended."""
        progress = self.attempt.progress()
        how = f"signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exit code {code}"
        facts = {"host": self.handle.host or progress.get("host"),
                 "ended": self.handle.reason or progress.get("ended") or how,
                 "megabytes": progress.get("megabytes"), "log": str(self.attempt.log)}
        return {key: value for key, value in facts.items() if value}


@dataclass
class Scheduler:
    """Starts workers, at most `jobs` at a time, and reads their results from the registry."""

    registry: Registry
    project: Path
    executor: Executor
    jobs: int | None = None
    """Maximum number of leaves in training; None for as many as the executor accepts."""
    retries: int = 1
    """How often a leaf whose worker crashed is restarted; one that failed with an error is not."""
    detach: bool = False
    """Whether to return as soon as all leaves are submitted to the engine."""
    megabytes: Mapping[str, float] = field(default_factory=dict)
    """Peak GPU memory of leaves by id, as far as it is known."""
    failed: set[str] = field(default_factory=set)
    _room: int = 1
    _signal: int = 0
    _waiting: list[PlannedNode] = field(default_factory=list)
    _awaited: Mapping[str, Collection[str]] = field(default_factory=dict)
    _running: list[_Worker] = field(default_factory=list)
    _crashes: dict[str, int] = field(default_factory=dict)
    _seen_elsewhere: set[str] = field(default_factory=set)
    _other_executors: dict[str, Executor] = field(default_factory=dict)

    def train(self, leaves: Sequence[PlannedNode], awaited: Mapping[str, Collection[str]] | None = None
              ) -> Iterator[Event]:
        """Train leaves and yield events; wait for leaves that another build is training.

        `awaited` are ids of leaves that must be finished before a leaf is started, by its id; it is not started where
        one of them fails. Raise Stopped once `interrupt` was called and the workers have written their checkpoints,
        UsageError where the executor's engine is unavailable.
        """
        if not leaves:
            return
        self._waiting, self._awaited = list(leaves), awaited or {}
        try:
            resources = [_model(node).resources for node in leaves]
            self._room = self.executor.open(self.project, self.jobs, resources)
            while self._waiting or self._running:
                if self._signal:
                    yield from self._stop()
                self.check()
                yield from self._start_waiting()
                for worker in list(self._running):
                    yield from self._poll(worker)
                if self.detach:
                    yield from self._detach()
                    return
                time.sleep(POLL_SECONDS + min(LONGEST_SECONDS, len(self._running) * EACH_SECONDS))
        finally:
            for executor in (self.executor, *self._other_executors.values()):
                executor.close()

    def give_up(self) -> None:
        """Start no more leaves; running workers continue to their end."""
        self._waiting.clear()
        for worker in self._running:
            if worker.handle.is_waiting:
                worker.is_withdrawn = True
                worker.handle.stop(now=True)

    def interrupt(self, number: int, frame: object = None) -> None:
        """Handle a signal: the first stops the workers with a checkpoint, a second one kills them."""
        if self._signal:
            self._kill()
            raise Stopped(number)
        self._signal = number

    def check(self) -> None:
        """Raise Stopped where a signal was received."""
        if self._signal:
            raise Stopped(self._signal)

    def _stop(self) -> Iterator[Event]:
        """Stop all workers with a checkpoint; kill those that take longer than `STOP_SECONDS`."""
        for worker in self._running:
            worker.handle.stop()
        deadline = time.monotonic() + STOP_SECONDS
        while [w for w in self._running if w.handle.poll() is None] and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        self._kill()
        for worker in self._running:
            worker.attempt.clear_job()
            yield Event("interrupted", worker.node.name, worker.node.id, worker.attempt.progress())

    def _kill(self) -> None:
        for worker in self._running:
            worker.handle.stop(now=True)
            worker.claim.close()

    def _detach(self) -> Iterator[Event]:
        """Release the leases of all workers; a later build attaches to them."""
        for worker in self._running:
            worker.claim.close()
            yield Event("detached", worker.node.name, worker.node.id, {"job": " ".join(worker.attempt.job())})
        self._running.clear()
        self._waiting.clear()

    def _start_waiting(self) -> Iterator[Event]:
        """Start waiting leaves while there is room; drop those that await a failed one."""
        self._waiting = [node for node in self._waiting if self.failed.isdisjoint(self._awaited.get(node.id, ()))]
        for node in list(self._waiting):
            if len(self._running) >= self._room:
                return
            awaited = self._awaited.get(node.id)
            if awaited and not self._unfinished().isdisjoint(awaited):
                continue
            with contextlib.ExitStack() as claim:
                try:
                    yield from self._start_or_reuse(node, claim)
                except MtrunError as error:
                    self._waiting.remove(node)
                    yield self._failure(node, [p.render() for p in error.problems])

    def _unfinished(self) -> set[str]:
        """Return the ids of the waiting and running leaves."""
        return {node.id for node in self._waiting} | {worker.node.id for worker in self._running}

    def _start_or_reuse(self, node: PlannedNode, claim: contextlib.ExitStack) -> Iterator[Event]:
        """Start a leaf, unless it is finished, another build trains it, or the executor has no room."""
        lease = claim.enter_context(self.registry.claim(node.id))
        if self._is_finished(node, lease is not None):
            self._waiting.remove(node)
            yield Event("reused", node.name, node.id)
        elif lease is not None:
            work = Work(self.registry.attempt(node.id), _model(node).resources, lease, self.megabytes.get(node.id))
            if self.executor.has_room(work):
                started = self._start(node, work, claim)
                self._waiting.remove(node)
                yield started
        elif node.id not in self._seen_elsewhere:
            self._seen_elsewhere.add(node.id)
            holder = leases.holder(self.registry.lease(node.id))
            yield Event("elsewhere", node.name, node.id, {"host": holder.host, "pid": holder.pid} if holder else {})

    def _is_finished(self, node: PlannedNode, is_ours: bool) -> bool:
        """Return whether there is a run that is not to be replaced; if `is_ours`, set a damaged one aside."""
        try:
            run = self.registry.find(node.id)
            if run and is_ours:
                run.predictions()
        except RegistryError:
            if is_ours:
                self.registry.set_aside(node.id)
            return False
        return run is not None and run.manifest["sha256"] != node.replaces

    def _start(self, node: PlannedNode, work: Work, claim: contextlib.ExitStack) -> Event:
        """Start a leaf's worker, or attach to the one that an earlier build left to its engine."""
        attempt, model, values = Attempt(work.attempt), _model(node), dict[str, Any]()
        engine, job = attempt.job()
        handle = self._engine(engine).attach(work, job) if engine else None
        if handle:
            values = {"resumed": True, "job": f"{engine} {job}"}
        else:
            training_job = TrainingJob(node.id, node.name, self.project, model, node.replaces, node.trees,
                                       fingerprints(model))
            values = {"resumed": attempt.begin(training_job.to_bytes(), training_job.replaces)}
            handle = self.executor.start(work)
        step = attempt.progress().get("step", 0) if values["resumed"] else 0
        self._running.append(_Worker(node, attempt, handle, claim.pop_all(), step=step))
        return Event("started", node.name, node.id, values | ({"queued": True} if handle.is_waiting else {}))

    def _engine(self, name: str) -> Executor:
        """Return the executor of a type, for a worker of an earlier build; this build's where there is no such type."""
        if name != self.executor.type and name not in self._other_executors:
            executor_class = find(Executor, name, self.project)  # type: ignore[type-abstract]
            self._other_executors[name] = executor_class() if executor_class else self.executor
        return self._other_executors.get(name, self.executor)

    def _poll(self, worker: _Worker) -> Iterator[Event]:
        """Yield a worker's progress, or the event of its end."""
        node, code = worker.node, worker.handle.poll()
        if code is None:
            worker.seen = time.monotonic()
            yield from self._progress(worker)
            return
        try:
            is_finished = self._is_finished(node, is_ours=True)
        except MtrunError as error:  # the run cannot be read, so it must not be replaced; other leaves continue
            self._running.remove(worker)
            with worker.claim:
                worker.attempt.clear_job()
                yield self._failure(node, [problem.render() for problem in error.problems])
            return
        if code == 0 and not is_finished and time.monotonic() - worker.seen < SHARING_SECONDS:
            return  # on a shared file system the run may appear a little later
        self._running.remove(worker)
        with worker.claim:
            if is_finished:
                yield Event("trained", node.name, node.id, {"seconds": round(time.monotonic() - worker.started, 1)})
                return  # the worker removes its attempt itself
            worker.attempt.clear_job()
            if not worker.is_withdrawn:
                yield self._retry_or_fail(worker, code)

    def _progress(self, worker: _Worker) -> Iterator[Event]:
        """Touch the lease, and yield a worker's progress where it has changed."""
        if time.monotonic() - worker.touched > leases.TOUCH_SECONDS:
            worker.touched = time.monotonic()
            leases.touch(self.registry.lease(worker.node.id))
        progress = {} if worker.handle.is_waiting else worker.attempt.progress()
        if "step" in progress and progress != worker.progress:
            worker.progress = progress
            yield Event("progress", worker.node.name, worker.node.id, progress)

    def _retry_or_fail(self, worker: _Worker, code: int) -> Event:
        """Put the leaf of a crashed worker back into the queue, or count it as failed."""
        node, problems, facts = worker.node, worker.attempt.problems(), worker.facts(code)
        is_crash = code < 0 or code > 128  # by a signal; other codes are errors whose message could not be written
        if not problems and (is_crash or worker.handle.is_excused):
            is_excused = worker.handle.is_excused or code in STOPPED
            if not (is_excused and worker.attempt.progress().get("step", 0) > worker.step):
                self._crashes[node.id] = self._crashes.get(node.id, 0) + 1
            if self._crashes.get(node.id, 0) <= self.retries:
                self._waiting.insert(0, node)
                return Event("retried", node.name, node.id, {"reason": facts.pop("ended"), **facts})
        return self._failure(node, problems or [f"error: the worker ended: {facts['ended']}"], facts)

    def _failure(self, node: PlannedNode, problems: list[str], facts: Mapping[str, Any] | None = None) -> Event:
        self.failed.add(node.id)
        return Event("failed", node.name, node.id, {"problems": problems, **(facts or {})})


def _model(node: PlannedNode) -> Model:
    """Return the model of a leaf that is to be trained."""
    assert isinstance(node.spec, Leaf)
    return node.spec.model
