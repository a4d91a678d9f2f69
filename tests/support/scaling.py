"""Leaves per minute by engine and workers, and a simulation of many leaves on many nodes.

    python tests/support/scaling.py measure [--leaves 12] [--workers 4]... [--engine local|command|ray|slurm]...
    python tests/support/scaling.py simulate [--registry registry] [--leaves 1000] [--nodes 100]

`measure` builds a sweep whose leaves take three seconds each and no core: a worker sleeps and then brings a run that
was made before, so that it is the engine that is measured. `slurm` wants a cluster, such as the one that
`python tests/cluster/slurm.py COMMAND` starts. `simulate` drives the real pool with an engine that only pretends: a
leaf takes as long as one that the registry holds, on a clock that goes on by what the pool really takes and by nothing
else.
"""

from __future__ import annotations

import argparse
import heapq
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engines import contents, inline, many
from runs import finished

from runner.build import scheduler
from runner.files import remove
from runner.plan.plan import Plan
from runner.plan.planner import make_plan
from runner.registry.registry import Registry
from runner.worker.executors import Executor, Handle, Work

SECONDS = 3
"""How long a leaf takes that is measured."""
WORKERS = (1, 2, 4)
ENGINES = {
    "local": (), "ray": (), "slurm": ("--set", "executor.poll_seconds=1"),
    "command": ("--set", "executor.template=bash -c {command}", "--set", 'executor.hosts=["here"]'),
}
MTRUN = "import sys; sys.executable = sys.argv.pop(1); from runner.cli import main; main()"
WORKER = """#!/bin/sh
sleep {seconds}
id=$(basename "$4")
cp -r {made}/registry/$id {root}/registry/.attempts/staged-$id
mv {root}/registry/.attempts/staged-$id {root}/registry/$id
rm -r "$4"
"""


def measure(engine: str, leaves: int, numbers: Sequence[int] = WORKERS) -> list[float]:
    """Return how many seconds a build takes with each number of workers, each leaf of `SECONDS` seconds."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        made, worker = inline(Path(folder) / "made", leaves), Path(folder) / "worker"
        for workers in numbers:
            root = many(Path(folder) / str(workers), leaves)
            worker.write_text(WORKER.format(seconds=SECONDS, made=made, root=root))
            worker.chmod(0o755)
            options = [*ENGINES[engine], *(["--set", f"executor.leaves={workers}"] if engine == "command" else []),
                       *(["--set", f"executor.python={worker}"] if engine != "local" else [])]
            python = str(worker) if engine == "local" else sys.executable
            command = [sys.executable, "-c", MTRUN, python, "build", "specs/many.toml", "-q", "-j", str(workers)]
            began = time.perf_counter()
            subprocess.run([*command, "--executor", engine, *options], cwd=root, check=True, stdout=subprocess.DEVNULL)
            found.append(time.perf_counter() - began)
            assert contents(root) == contents(made)
    return found


class Clock:
    """A clock that rests for nobody, and that what workers do elsewhere does not move."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.elsewhere = 0.0
        """Processor seconds that other machines would have spent."""

    def monotonic(self) -> float:
        """Return the time."""
        return time.perf_counter() + self.ahead

    def sleep(self, seconds: float) -> None:
        """Let time go by at once."""
        self.ahead += seconds


class Pretended(Handle):
    """A leaf that ends at a given time."""

    def __init__(self, clock: Clock, end: float, plan: Plan, id: str) -> None:
        self.clock, self.end, self.plan, self.id = clock, end, plan, id

    def poll(self) -> int | None:
        if self.clock.monotonic() < self.end:
            return None
        began, used = time.perf_counter(), time.process_time()
        registry = replace(self.plan, registry=Registry(self.plan.project / "made"))
        finished(registry, self.plan.nodes[self.id], {})
        remove(self.plan.registry.attempt(self.id))
        self.clock.ahead -= time.perf_counter() - began  # a worker does this, on its own machine
        self.clock.elsewhere += time.process_time() - used
        return 0

    def stop(self, now: bool = False) -> None:
        raise NotImplementedError


class Pretending(Executor):
    """An engine with so many nodes; a worker needs some seconds before it trains."""

    type = "pretending"

    clock: Any
    plan: Any
    seconds: dict[str, float]
    nodes: int

    def open(self, *told: Any) -> int:
        """Return the number of nodes."""
        return self.nodes

    def start(self, work: Work) -> Handle:
        """Start a leaf."""
        return Pretended(self.clock, self.clock.monotonic() + self.seconds[work.attempt.name], self.plan,
                         work.attempt.name)


def recorded(registry: Path) -> list[float]:
    """Return the seconds of all leaves of a registry, longest first."""
    return sorted((run.manifest["seconds"] for run in Registry(registry).runs()), reverse=True)


def ideal(seconds: Sequence[float], nodes: int) -> float:
    """Return how long the leaves take, longest first, where nothing costs any time but they themselves."""
    free = [0.0] * nodes
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def simulate(times: Sequence[float], leaves: int, nodes: int, start: float) -> str:
    """Return the row of a table for so many leaves on so many nodes."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        root = many(Path(folder) / "project", leaves)
        plan = make_plan(root, [root / "specs" / "many.toml"], "demo")
        seconds = {node.id: times[i * len(times) // leaves] + start for i, node in enumerate(plan.todo())}
        scheduler.time = clock  # type: ignore[attr-defined]
        engine = Pretending(clock=clock, plan=plan, seconds=seconds, nodes=nodes)
        began, used = clock.monotonic(), time.process_time()
        work = scheduler.Scheduler(plan.registry, root, engine)
        work._is_finished = lambda node, is_ours: (root / "made" / node.id).is_dir()  # type: ignore[method-assign]
        trained = [event for event in work.train(plan.todo()) if event.event == "trained"]
        took, used = clock.monotonic() - began, time.process_time() - used - clock.elsewhere
    assert len(trained) == leaves
    best = ideal(sorted(seconds.values(), reverse=True), nodes)
    figures = f"{best:.0f} s | {took:.0f} s | {100 * best / took:.0f} % | {1000 * used / leaves:.0f} ms"
    return f"| {leaves} | {nodes} | {figures} |"


def main() -> None:
    """Print a table."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("what", choices=["measure", "simulate"])
    arguments.add_argument("--engine", action="append", choices=list(ENGINES))
    arguments.add_argument("--leaves", type=int, action="append")
    arguments.add_argument("--workers", type=int, action="append")
    arguments.add_argument("--nodes", type=int, action="append")
    arguments.add_argument("--registry", type=Path, default=Path("registry"))
    arguments.add_argument("--start", type=float, default=3.0, help="seconds before a worker trains")
    given = arguments.parse_args()
    if given.what == "measure":
        numbers = given.workers or WORKERS
        print(f"| engine | {' | '.join(f'{n} at a time' for n in numbers)} |\n|---|{'--:|' * len(numbers)}")
        leaves = (given.leaves or [12])[0]
        best = [SECONDS * -(-leaves // n) for n in numbers]
        print(f"| best | {' | '.join(f'{60 * leaves / x:.0f}' for x in best)} |")
        for engine in given.engine or ENGINES:
            cells = [f"{60 * leaves / x:.0f} (+{x - least:.0f} s)"
                     for x, least in zip(measure(engine, leaves, numbers), best, strict=True)]
            print(f"| {engine} | {' | '.join(cells)} |")
    else:
        print("| leaves | nodes | best | simulated | of the best | the pool's time a leaf |\n|--:|--:|--:|--:|--:|--:|")
        for leaves in given.leaves or [50, 1000]:
            for nodes in given.nodes or [10, 100]:
                print(simulate(recorded(given.registry), leaves, nodes, given.start))


if __name__ == "__main__":
    main()
