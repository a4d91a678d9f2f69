"""Several processes that train one leaf: the losses, weights and files of one; stops, losses and want of memory."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from projects import project

from runner.build.scheduler import _Worker
from runner.errors import Diverged, Stopped, TrainingError
from runner.parts.encoders import Packed
from runner.plan import forecast
from runner.plan.plan import PlannedNode
from runner.plan.planner import make_plan
from runner.registry.attempt import Attempt
from runner.registry.registry import Registry
from runner.specs.job import TrainingJob
from runner.specs.loader import Loader
from runner.specs.spec import Leaf, Resources
from runner.tasks.data import Examples
from runner.training.batches import Batch
from runner.training.distributed import ProcessGroup
from runner.training.network import Network
from runner.training.trainer import Trainer, TrainerCallback
from runner.worker import supervisor, worker
from runner.worker.executors import Handle
from runner.worker.supervisor import Supervisor
from runner.worker.worker import processes, trainer_of

FORK = multiprocessing.get_context("fork")
DRY = ["encoder.dropout=0.0", "encoder.hidden_dropout=0.0"]
RAGGED = [*DRY, "train.epoch=longest", "suite.train=57"]
"""Eight batches an epoch, the last of one example a task; the fifth has one of sentiment and eight of the others."""


def trainer(root: Path, *settings: str, most: int = 33) -> Trainer:
    """Return the trainer of the project's leaf, with at most so many examples of one task."""
    (node,) = Loader(root, "demo", settings).load(root / "specs" / "sum.toml")
    data = node.model.suite.load(root)
    train = data.splits["sentiment"]["train"]
    assert train.labels is not None
    fewer = Examples(train.ids[:most], train.first[:most], labels=train.labels[:most])
    splits = {**data.splits, "sentiment": {**data.splits["sentiment"], "train": fewer}}
    return trainer_of(node.model, replace(data, splits=splits), root, root / "cache")


def together(do: Callable[[ProcessGroup], Any], count: int = 2) -> list[Any]:
    """Return what so many processes return, each of which is one of the ranks; what they raise is returned, too."""
    store = dist.TCPStore("127.0.0.1", 0, count, True, wait_for_workers=False)
    pipes, started = [], []
    all_there = FORK.Event()  # the store's thread may hold a lock of the C library while it greets who connects

    def be(number: int, pipe: Any) -> None:
        all_there.wait()
        try:
            pipe.send(do(ProcessGroup.joined(number, count, dist.TCPStore("127.0.0.1", store.port, count, False))))
        except Exception as error:
            pipe.send(error)
        os._exit(0)

    for number in range(count):
        pipe, other = FORK.Pipe(duplex=False)
        started.append(FORK.Process(target=be, args=(number, other)))
        started[-1].start()
        other.close()
        pipes.append(pipe)
    all_there.set()
    found = [pipe.recv() for pipe in pipes]
    for process in started:
        process.join()
    return found


def result(run: Trainer, ranks: ProcessGroup, checkpoint: Path) -> tuple[Any, ...]:
    """Train to the end; return what all ranks must have in common."""
    run.network.ranks = ranks
    said = run.run(TrainerCallback(), checkpoint)
    weights = {name: tensor.numpy() for name, tensor in run.network.state_dict().items()}
    scores = {(split, task): out.scores for split, outs in said.outputs.items() for task, out in outs.items()}
    return [entry["losses"] for entry in run.state.history], weights, scores, run.state.splits




@pytest.mark.parametrize("settings", [
    RAGGED, [*RAGGED, "combiner.type=pcgrad"], [*RAGGED, "encoder.freeze=true", "encoder.hidden_dropout=0.0"],
    [*RAGGED, "combiner.type=pcgrad", "heads.paraphrase={type='cross',loss='bce'}", "encoder.segments=2",
     "optimizer.layer_decay=0.8", "regularizer={type='rdrop'}"],
], ids=["sum", "pcgrad", "frozen", "parts"])
def test_two_processes_come_to_what_one_does(tmp_path: Path, settings: list[str]) -> None:
    root = project(tmp_path)
    alone, pair = trainer(root, *settings), trainer(root, *settings)
    losses, weights, scores, _ = result(alone, ProcessGroup(), root / "one")
    first, second = together(lambda ranks: result(pair, ranks, root / "two"))
    assert len(alone.batches) == 16
    for entry, other in zip(losses, first[0], strict=True):
        assert other == pytest.approx(entry, abs=1e-5)
    for name, tensor in weights.items():
        if "key.bias" not in name:  # adds the same to all scores of a row: softmax has no gradient there but noise
            np.testing.assert_allclose(first[1][name], tensor, atol=1e-5, err_msg=name)
        np.testing.assert_array_equal(first[1][name], second[1][name], err_msg=name)
    for key, expected in scores.items():
        np.testing.assert_allclose(first[2][key], expected, atol=1e-4)
        np.testing.assert_array_equal(first[2][key], second[2][key])


@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(1, 5), st.integers(1, 4))
def test_what_all_ranks_compute_is_the_batch(sizes: list[int], count: int, parts: int) -> None:
    labels = {str(task): torch.arange(1.0, n + 1) for task, n in enumerate(sizes)}
    packed = Packed(torch.arange(sum(sizes)), torch.ones(sum(sizes), dtype=torch.int64), tuple(sizes))
    weights = {task: 2 * of_task for task, of_task in labels.items() if task == "0"}
    batch = Batch(packed, labels, weights, {task: len(of_task) for task, of_task in labels.items()})
    shares = [[*ProcessGroup(number, count).share(batch, parts)] for number in range(count)]
    assert all(shares), "a rank without a part would have no gradients to add"
    for task, of_task in labels.items():
        mean = sum(float(part.labels[task].sum()) / part.examples[task] for share in shares for part in share)
        assert mean == pytest.approx(float(of_task.mean()))
    assert all((part.weights["0"] == 2 * part.labels["0"]).all() for share in shares for part in share)
    met = torch.cat([part.packed.tokens for share in shares for part in share])
    assert set(met.tolist()) == set(range(sum(sizes)))


def test_where_memory_runs_out_on_one_all_go_on_in_smaller_parts(tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    root, real = project(tmp_path), Network.losses
    alone, pair = trainer(root, *RAGGED), trainer(root, *RAGGED)

    def scarce(self: Network, batch: Batch, *more: Any) -> list[torch.Tensor]:
        if self.ranks.number and batch.most > 2:
            raise torch.OutOfMemoryError("out of memory")
        return real(self, batch, *more)

    losses, *_ = result(alone, ProcessGroup(), root / "one")
    monkeypatch.setattr(Network, "losses", scarce)
    for found, *_, splits in together(lambda ranks: result(pair, ranks, root / "two")):
        assert splits == [{"step": 1, "parts": 2}]
        for entry, other in zip(losses, found, strict=True):
            assert other == pytest.approx(entry, abs=1e-5)


def test_all_ranks_end_alike(tmp_path: Path) -> None:
    root = project(tmp_path)
    (root / "attempt").mkdir()
    run = trainer(root, *DRY, "optimizer.lr=1e30")
    first, second = together(lambda ranks: result(run, ranks, root / "none"))
    assert isinstance(first, Diverged) and str(first) == str(second)

    def stopped(ranks: ProcessGroup) -> int:
        watch = Supervisor(Attempt(root / "attempt"), ranks=ranks)
        watch.tick()
        if ranks.number:
            watch.stop(15)
        try:
            watch.tick()
        except Stopped as error:
            return error.exit_code
        return 0

    assert together(stopped, 3) == [143] * 3


# A whole worker -------------------------------------------------------------------------------------------------------


LONG = [*DRY, "train.epochs=3", "train.steps=40", "resources.checkpoint_seconds=0"]


def begun(root: Path) -> tuple[PlannedNode, Attempt]:
    """Begin an attempt at the project's leaf."""
    plan = make_plan(root, [root / "specs" / "sum.toml"], "demo", LONG)
    (node,) = plan.nodes.values()
    assert isinstance(node.spec, Leaf)
    attempt = Attempt(plan.registry.attempt(node.id))
    attempt.begin(TrainingJob(node.id, node.name, root, node.spec.model).to_bytes())
    return node, attempt


class Ended(Handle):
    """The handle of a worker that has ended."""

    def poll(self) -> int | None:
        return 137

    def stop(self, now: bool = False) -> None:
        raise NotImplementedError


class Working:
    """A worker of so many processes, in a process of its own."""

    def __init__(self, attempt: Attempt, count: int, python: str = sys.executable) -> None:
        self.attempt, self.python = attempt, python
        self.before = attempt.progress()
        self.process = FORK.Process(target=self._work, args=(count,))
        self.process.start()

    def _work(self, count: int) -> None:
        worker.processes = lambda model: count
        sys.executable, supervisor.ERROR_SECONDS = self.python, 0.0
        with self.attempt.log.open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        os._exit(worker.main(self.attempt.folder))

    def others(self) -> list[int]:
        """Return the processes that it has started."""
        return [*map(int, Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split())]

    def send(self, number: int, process: int) -> None:
        """Send a signal to a process once there is a new checkpoint."""
        begun = self.before.get("step", 0)
        while self.attempt.progress().get("step", 0) <= begun or not self.attempt.checkpoint.exists():
            assert self.process.is_alive(), self.attempt.log.read_text()
            time.sleep(0.02)
        os.kill(process, number)

    def end(self) -> int:
        """Return the exit code, once all of its processes are gone."""
        self.process.join(600)
        assert self.process.exitcode is not None
        return self.process.exitcode


def test_a_worker_of_two_processes_stops_loses_one_and_goes_on(tmp_path: Path) -> None:
    root = project(tmp_path)
    node, attempt = begun(root)
    stopped = Working(attempt, 2)
    stopped.send(signal.SIGTERM, stopped.process.pid or 0)
    assert stopped.end() == 143
    alone = Working(attempt, 1)
    alone.send(signal.SIGTERM, alone.process.pid or 0)
    assert alone.end() == 143
    losing = Working(attempt, 2)
    losing.send(0, losing.process.pid or 0)
    (other,) = losing.others()
    os.kill(other, signal.SIGKILL)
    assert losing.end() == 128 + signal.SIGKILL
    facts = _Worker(node, attempt, Ended(), ExitStack()).facts(137)
    assert facts["ended"] == "process 2 of 2 ended: signal 9 (Killed)" and not attempt.problems()
    last = Working(attempt, 2)
    assert last.end() == 0
    (run,) = Registry(root / "registry").runs()
    assert run.manifest["environment"]["device"].startswith("2 x cpu")
    log = run.read("log.txt").decode()
    assert log.count("resumed at step") == 3 and "process 2 of 2 ended" in log
    assert "ended" not in attempt.progress()
    whole = trainer(root, *LONG, most=60)
    losses, *_ = result(whole, ProcessGroup(), root / "none")
    told = [json.loads(line)["losses"] for line in run.read("history.jsonl").decode().splitlines()]
    assert len(told) == 3
    for entry, other in zip(losses, told, strict=True):
        assert other == pytest.approx(entry, abs=1e-3)


@pytest.mark.parametrize(("does", "code", "problems"), [
    ("echo error: no room; exit 2", 2, ["error: no room"]),
    ("exit 3", 3, ["process 2 of 2 ended: exit code 3"]),
    ("kill -9 $$", 137, []),
])
def test_a_process_that_fails_before_it_trains_ends_the_worker(tmp_path: Path, does: str, code: int,
                                                               problems: list[str]) -> None:
    _, attempt = begun(project(tmp_path))
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{does}\n")
    script.chmod(0o755)
    assert Working(attempt, 2, str(script)).end() == code
    assert attempt.problems() == problems


def test_a_leaf_has_as_many_processes_as_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (node,) = Loader(project(tmp_path), "demo", ["resources.gpus=4", "resources.threads=2"]).load(
        tmp_path / "specs" / "sum.toml")
    with pytest.raises(TrainingError, match=r"wants 4 GPUs \(resources.gpus\), and its worker sees none"):
        processes(node.model)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert processes(node.model) == 4 and node.model.resources.cores == 8
    assert processes(node.model.model_copy(update={"resources": Resources(gpus=4, device="cuda:1")})) == 1
    gpus = tmp_path / "gpus"
    for number in range(4):
        (gpus / str(number)).mkdir(parents=True)
        (gpus / str(number) / "information").write_text("Model: \t\t Big GPU\n")
    monkeypatch.setattr(forecast, "GPUS", gpus)
    assert forecast.machines_of(node.model.resources) == [("4 x Big GPU", 2)]
    assert forecast.machines_of(Resources()) == [("Big GPU", 1)]
