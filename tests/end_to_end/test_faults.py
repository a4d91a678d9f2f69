"""Training under failure: kills, full disks, races, changes behind its back. Every run ends as the same bytes."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faults
import pytest
from builds import built, mtrun, names
from projects import project

from runner.build.scheduler import Scheduler
from runner.files import append
from runner.plan.plan import Plan
from runner.plan.planner import make_plan
from runner.registry.attempt import Attempt
from runner.registry.registry import PREDICTIONS, WEIGHTS, Registry
from runner.specs.job import TrainingJob
from runner.specs.spec import Leaf
from runner.tasks.predictions import Predictions
from runner.worker.executors import Executor, Handle, Work
from runner.worker.executors.inline import Inline

SMALL = ["resources.checkpoint_seconds=0", "train.batch_size=20"]
LONGER = ["resources.checkpoint_seconds=0", "train.epochs=2", "train.steps=40"]
ENDLESS = ["train.epochs=1000", "train.steps=60"]

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["runner.worker", "faults", "torch"])


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: thousands of syncs are slow on a disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as name:
        yield Path(name)


def planned(root: Path, settings: Sequence[str] = (), spec: str = "sum") -> Plan:
    return make_plan(root, [root / "specs" / f"{spec}.toml"], "demo", settings)


def begun(root: Path, settings: Sequence[str]) -> Attempt:
    """Order the training of `sum` as a build does."""
    plan = planned(root, settings)
    (node,) = plan.nodes.values()
    assert isinstance(node.spec, Leaf)
    attempt = Attempt(plan.registry.attempt(node.id))
    attempt.begin(TrainingJob(node.id, node.name, root, node.spec.model).to_bytes())
    return attempt


def work(attempt: Path, operations: faults.Operations | None = None) -> None:
    """Be a worker, on a machine that fails where `operations` says so."""
    from runner.worker.worker import main

    if operations:
        operations.install()
    code = main(attempt)
    if operations and not operations.at:
        (attempt.parents[2] / "operations").write_text(str(len(operations.seen)))
    os._exit(code)


def worker(attempt: Attempt, operations: faults.Operations | None = None) -> Any:
    process = CONTEXT.Process(target=work, args=(attempt.folder, operations))
    process.start()
    return process


def ended(process: Any) -> int:
    process.join(600)
    assert process.exitcode is not None
    return int(process.exitcode)


def bytes_of(root: Path) -> dict[str, bytes]:
    """Return what a run consists of that must not depend on how it came about."""
    (run,) = Registry(root / "registry").runs()
    run.verify()
    return {name: run.read(name) for name in (WEIGHTS, PREDICTIONS, "history.jsonl")}


def forget(root: Path) -> None:
    shutil.rmtree(root / "registry")


# Kills ------------------------------------------------------------------------------------------------------------


def training(attempt: Attempt, process: Any) -> None:
    """Wait until a worker has begun to train."""
    starts = attempt.log.read_text().count("training sum") if attempt.log.exists() else 0
    while process.is_alive() and not (attempt.log.exists() and attempt.log.read_text().count("training sum") > starts):
        time.sleep(0.002)


@pytest.mark.parametrize(("kills", "combiners"), [
    (6, ["pcgrad"]), pytest.param(34, ["sum", "mean", "pcgrad"], marks=pytest.mark.long)])
def test_random_kills_leave_the_same_bytes(folder: Path, kills: int, combiners: list[str]) -> None:
    """Half of the kills come at any time, half while it trains; nearly all of these find a checkpoint to go on from."""
    chance, total, resumed, rounds = random.Random(kills), 0, 0, 0
    for combiner in combiners:
        root, settings = project(folder / combiner), [*LONGER, f"combiner={combiner}"]
        assert ended(worker(begun(root, SMALL))) == 0  # warm, so that the next one takes as long as those after it
        forget(root)
        started = time.monotonic()
        assert ended(worker(begun(root, settings))) == 0
        (run,) = Registry(root / "registry").runs()
        whole, window, done = bytes_of(root), (time.monotonic() - started, run.manifest["seconds"]), 0
        while done < kills:
            forget(root)
            rounds += 1
            while not list(Registry(root / "registry").runs()):
                attempt = begun(root, settings)
                resumed += attempt.checkpoint.exists()
                process = worker(attempt)
                if done % 2:
                    training(attempt, process)
                process.join(chance.uniform(0, window[done % 2]) if done < kills else 120)
                if process.exitcode is None:
                    process.kill()
                    done += 1
                ended(process)
            assert bytes_of(root) == whole
        total += done
    print(f"\n{total} SIGKILLs at random times of {rounds} trainings ({', '.join(combiners)}), {resumed} times a worker"
          " went on from a checkpoint: the same bytes")
    assert resumed >= total // 4


@pytest.mark.parametrize("most", [3, pytest.param(10_000, marks=pytest.mark.long)])
@pytest.mark.parametrize("error", [0, faults.NO_ROOM, faults.NO_LUCK], ids=["crash", "full", "EIO"])
def test_a_failure_at_file_operations_of_a_whole_training(folder: Path, error: int, most: int) -> None:
    """From reading the order to the last clearing up: the next worker goes on to the same bytes."""
    root = project(folder / "project")
    assert ended(worker(begun(root, SMALL), faults.Operations(root / "registry"))) == 0
    whole, total = bytes_of(root), int((root / "operations").read_text())
    chosen = sorted(random.Random(0).sample(range(1, total + 1), min(most, total)))
    codes, told = [], 0
    for at in chosen:
        forget(root)
        attempt = begun(root, SMALL)
        failing = faults.Operations(root / "registry", at, error, lasting=error == faults.NO_ROOM)
        code = ended(worker(attempt, failing))
        assert code in ((0, faults.DIED) if not error else (0, 1)), f"operation {at}: exit code {code}"
        told += code == 1 and any(os.strerror(error) in problem for problem in attempt.problems())
        if code:
            assert ended(worker(begun(root, SMALL))) == 0
        assert bytes_of(root) == whole, f"operation {at}"
        codes.append(code)
    what = os.strerror(error) if error else "death"
    print(f"\n{what} at {len(chosen)} of the {total} file operations of a training: {codes.count(0)} finished all the "
          f"same, {len(chosen) - codes.count(0)} did not, {told} of them told why; all ended as the same bytes")


def endless(root: Path, event: str) -> subprocess.Popen[str]:
    """Return a build whose training does not end, when it has told of such an event."""
    build = mtrun(root, "build", "specs/sum.toml", "--json", *(word for s in ENDLESS for word in ("--set", s)))
    assert build.stdout
    for text in build.stdout:
        if json.loads(text)["event"] == event:
            break
    return build


def test_a_killed_build_is_noticed_by_its_worker(tmp_path: Path) -> None:
    root = project(tmp_path)
    build = endless(root, "progress")
    build.kill()
    killed = time.monotonic()
    (id,) = (p.name for p in (root / "registry" / ".attempts").iterdir() if p.is_dir())
    registry = Registry(root / "registry")
    while True:
        with registry.claim(id) as lease:
            if lease is not None:
                break
        assert time.monotonic() - killed < 30
        time.sleep(0.05)
    assert Attempt(registry.attempt(id)).checkpoint.is_file()
    print(f"\na worker whose build was killed stopped with a checkpoint after {time.monotonic() - killed:.1f} s")
    build.communicate()


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    root = project(tmp_path)
    build = endless(root, "started")
    build.send_signal(signal.SIGTERM)  # while torch is imported, or training has begun
    time.sleep(0.02)
    build.send_signal(signal.SIGTERM)
    _, err = build.communicate(timeout=600)
    assert build.returncode == 143 and "Traceback" not in err


def test_a_worker_whose_build_was_gone_before_it_began_stops(folder: Path) -> None:
    """The build's process number is handed to the worker: it may be gone before the worker first looks."""
    attempt = begun(project(folder / "project"), ENDLESS)
    done = subprocess.run([sys.executable, "-m", "runner.worker", str(attempt.folder), "1073741824"], timeout=600)
    assert done.returncode == 143
    assert not list(Registry(attempt.folder.parents[1]).runs())


# Builds beside each other -----------------------------------------------------------------------------------------


class _Done(Handle):
    def __init__(self, process: Any) -> None:
        self.process = process

    def poll(self) -> int | None:
        return self.process.poll()  # type: ignore[no-any-return]

    def stop(self, now: bool = False) -> None:
        self.process.kill()


class Pretending(Executor):
    """Starts a worker that trains nothing, but counts that it was started, and commits."""

    type = "pretending"

    def start(self, work: Work) -> Handle:
        """Start it."""
        root, id = work.attempt.parents[1], work.attempt.name
        append(root.parent / "trained", id)
        code = ("import sys, time; from pathlib import Path; sys.path[:0] = sys.argv[3:]; time.sleep(0.1); "
                "from registries import commit; from runner.registry import Registry; "
                "commit(Registry(Path(sys.argv[1])), sys.argv[2])")
        here = str(Path(faults.__file__).parent)
        return _Done(subprocess.Popen([sys.executable, "-c", code, str(root), id, here], pass_fds=(work.lease,)))


def _build(root: Path, barrier: Any, rounds: int) -> None:
    plan = planned(root, spec="sum")
    for _ in range(rounds):
        barrier.wait()
        pool = Scheduler(plan.registry, root, Pretending(), jobs=2)
        assert not [event for event in pool.train(plan.todo()) if event.event == "failed"]
        barrier.wait()


@pytest.mark.parametrize("rounds", [3, pytest.param(20, marks=pytest.mark.long)])
def test_four_builds_train_each_leaf_once(folder: Path, rounds: int) -> None:
    sweep = '\n[sweep]\n"optimizer.lr_scale" = [1, 2, 3]\n'
    root = project(folder / "project")
    spec = root / "specs" / "sum.toml"
    spec.write_text(spec.read_text() + sweep)
    leaves = len(planned(root).todo())
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(5)
    builders = [context.Process(target=_build, args=(root, barrier, rounds)) for _ in range(4)]
    for builder in builders:
        builder.start()
    for _ in range(rounds):
        barrier.wait(600)
        barrier.wait(600)
        trained = (root / "trained").read_text().split()
        assert len(trained) == len(set(trained)) == leaves == 3, trained
        registry = Registry(root / "registry")
        assert len(list(registry.runs())) == leaves
        assert not [p.name for p in registry.attempts.iterdir() if p.suffix == ".lock"]
        (root / "trained").unlink()
        for id in registry.ids():
            registry.drop(id)
    for builder in builders:
        builder.join(600)
        assert builder.exitcode == 0
    print(f"\n4 builds x {rounds} rounds x {leaves} leaves: each trained once")


@pytest.mark.long
def test_four_real_builds_train_each_leaf_once(tmp_path: Path) -> None:
    root = project(tmp_path, pcgrad='kind = "model"\nextends = "sum.toml"\ncombiner = "pcgrad"\n')
    builds = [mtrun(root, "build", "specs/sum.toml", "specs/pcgrad.toml", "--json") for _ in range(4)]
    events = [json.loads(line) for build in builds for line in build.communicate(timeout=300)[0].splitlines()]
    assert [build.returncode for build in builds] == [0] * 4
    assert sorted(e["name"] for e in events if e["event"] == "started") == ["pcgrad", "sum"]
    assert [e["event"] for e in events].count("elsewhere") > 0


# Disks ------------------------------------------------------------------------------------------------------------


def test_a_leaf_that_cannot_be_written_does_not_keep_others_from_training(tmp_path: Path) -> None:
    root = project(tmp_path, other='kind = "model"\nextends = "sum.toml"\n[train]\nseed = 1\n')
    (node,) = planned(root, SMALL).nodes.values()
    place = root / "registry" / ".attempts" / node.id
    place.parent.mkdir(parents=True)
    place.write_text("a file where a folder is to be")
    events = built(root, "sum", "other", settings=SMALL)
    (failed,) = [e for e in events if e.event == "failed"]
    assert failed.name == "sum@batch_size=20" and f"cannot make {place}" in failed.values["problems"][0]
    assert names(events, "trained") == ["other@batch_size=20"]
    place.unlink()
    assert names(built(root, "sum", "other", settings=SMALL), "trained") == ["sum@batch_size=20"]


def test_a_build_on_a_disk_that_fills_up_can_go_on_when_there_is_room(small_disk: Path, folder: Path) -> None:
    root = project(small_disk)
    attempt = begun(root, LONGER)
    free = os.statvfs(root).f_bavail * os.statvfs(root).f_frsize
    (root / "ballast").write_bytes(bytes(free - 40_000))
    assert ended(worker(attempt)) == 1
    (problem,) = attempt.problems()
    assert "No space left on device" in problem and " bytes)" in problem and str(root) in problem
    assert not list(Registry(root / "registry").runs())
    (root / "ballast").unlink()
    assert ended(worker(begun(root, LONGER))) == 0
    other = project(folder / "other")
    assert ended(worker(begun(other, LONGER))) == 0
    assert bytes_of(root) == bytes_of(other)


# What changes behind its back -------------------------------------------------------------------------------------


def test_a_flipped_bit_in_predictions_is_noticed_and_the_run_trained_again(tmp_path: Path) -> None:
    root = project(tmp_path)
    built(root, "sum", settings=SMALL)
    whole = bytes_of(root)
    (path,) = (root / "registry").glob(f"[0-9a-f]*/{PREDICTIONS}")
    data = bytearray(path.read_bytes())
    data[-5] ^= 16  # the length is right: only a hash tells
    path.write_bytes(data)
    events = built(root, "sum", settings=SMALL)
    assert names(events, "damaged") == names(events, "trained") == ["sum@batch_size=20"]
    assert "is not what was written" in next(e for e in events if e.event == "damaged").values["problems"][0]
    assert bytes_of(root) == whole and len(list((root / "registry" / ".damaged").iterdir())) == 1


def test_a_damaged_checkpoint_is_not_gone_on_from(folder: Path) -> None:
    root = project(folder / "project")
    assert ended(worker(begun(root, SMALL))) == 0
    whole = bytes_of(root)
    forget(root)
    attempt = begun(root, SMALL)
    attempt.checkpoint.write_bytes(b"not what was written")
    assert ended(worker(attempt)) == 0
    assert bytes_of(root) == whole
    (run,) = Registry(root / "registry").runs()
    assert b"is damaged" in run.read("log.txt") and b"starting from the beginning" in run.read("log.txt")


@dataclass
class _Changing:
    """Changes a file once training has begun."""

    path: Path
    text: str

    def run(self, attempt: Attempt) -> int:
        from runner.training.trainer import State
        from runner.worker import worker
        from runner.worker.supervisor import Supervisor

        change = self

        class Watch(Supervisor):
            def report(self, state: State) -> None:
                change.path.write_text(change.text)

        return worker.run(Watch(attempt))


def test_data_that_change_during_training_are_noticed_before_the_commit(tmp_path: Path) -> None:
    root = project(tmp_path)
    rows = "".join(f"{i}\tit is {w}\t{w == 'good'}\n".replace("True", "1").replace("False", "0")
                   for i, w in enumerate(["good", "bad"] * 10))
    (root / "t.csv").write_text("id\tsentence\tlabel\n" + rows)
    (root / "d.csv").write_text("id\tsentence\tlabel\n" + rows.replace("it is", "it was"))
    (root / "specs" / "suites" / "own.toml").write_text(
        'kind = "suite"\ntype = "files"\nfolder = "."\n[tasks.sentiment]\ntitle = "S"\nkind = "classification"\n'
        'columns = ["sentence"]\nlabel = "label"\ntrain = "t.csv"\ndev = "d.csv"\n')
    profile = root / "specs" / "profiles" / "demo.toml"
    profile.write_text(profile.read_text().replace("tiny.toml", "own.toml").partition("[heads")[0])
    (root / "specs" / "sum.toml").write_text(
        'kind = "model"\n[heads.sentiment]\ntype = "linear"\nloss = "cross_entropy"\n[combiner]\ntype = "sum"\n'
        '[schedule]\ntype = "constant"\n')
    attempt, before = begun(root, SMALL), (root / "t.csv").read_text()
    assert _Changing(root / "t.csv", before.replace("bad", "sad")).run(attempt) == 2
    assert "changed while it was trained" in attempt.problems()[0]
    assert not list(Registry(root / "registry").runs())
    (root / "t.csv").write_text(before)
    assert _Changing(root / "t.csv", before).run(begun(root, SMALL)) == 0, "with the files put back it goes on"


def another_train(folder: Path) -> Path:
    """Return a file that stands for another version of train.py."""
    path = folder / "train.py"
    path.write_text("CODE = 'another'\n")
    return path


def test_older_code_is_told_and_trained_again_only_where_asked_for(tmp_path: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    from runner.specs import identity

    root = project(tmp_path)
    built(root, "sum", settings=SMALL)
    whole, real = bytes_of(root), identity.sources
    other = another_train(tmp_path)
    monkeypatch.setattr(identity, "sources", lambda model: real(model) | {"training/trainer.py": other})
    plan = planned(root, SMALL)
    (node,) = plan.nodes.values()
    assert (node.state, node.action, node.stale) == ("stale", "reuse", ("training/trainer.py",))
    plan.force(())
    assert not plan.todo()
    plan.rebuild_stale()
    (node,) = plan.todo()
    assert node.replaces and node.reason == "trained with older code of training/trainer.py"
    pool = Scheduler(plan.registry, root, Inline(), jobs=1)
    assert [e.event for e in pool.train(plan.todo()) if e.event in ("trained", "failed")] == ["trained"]
    assert bytes_of(root) == whole and len(list((root / "registry" / ".replaced").iterdir())) == 1
    assert [node.state for node in planned(root, SMALL).nodes.values()] == ["reuse"]


def test_force_replaces_a_run_and_keeps_the_old_one_until_then(tmp_path: Path) -> None:
    root = project(tmp_path, tree='kind = "ensemble"\n[tree]\ntype = "average"\nmembers = ["sum.toml", "other.toml"]\n',
                   other='kind = "model"\nextends = "sum.toml"\n[train]\nseed = 1\n')
    built(root, "tree", settings=SMALL)
    plan = planned(root, SMALL, "tree")
    plan.force(["other"])
    assert [node.name for node in plan.todo()] == ["other@batch_size=20"]
    plan.force(["tree"])
    assert sorted(node.name for node in plan.todo()) == ["other@batch_size=20", "sum@batch_size=20"]
    refused = mtrun(root, "build", "specs/tree.toml", "--force", "othr")
    assert "did you mean `other`" in refused.communicate(timeout=600)[1] and refused.returncode == 2
    before = {run.id: run.manifest["sha256"] for run in plan.registry.runs()}
    pool = Scheduler(plan.registry, root, Inline(), jobs=1)
    for event in pool.train(plan.todo()):
        assert event.event != "failed"
        if event.event in ("started", "progress"):
            aside = list((root / "registry" / ".replaced").glob("*"))
            assert len(list(plan.registry.runs())) + len(aside) >= 2, "the old run is there, or lies aside"
    assert all(run.manifest["sha256"] != before[run.id] for run in plan.registry.runs())


def test_a_run_that_was_begun_by_older_code_stays_marked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from runner.training import checkpoint

    root = project(folder / "project")
    plan = planned(root, SMALL)
    attempt = begun(root, SMALL)
    process = worker(attempt)
    while not attempt.checkpoint.exists() and process.exitcode is None:
        time.sleep(0.002)
    process.kill()
    ended(process)
    if list(plan.registry.runs()):
        pytest.skip("it was finished too soon")
    tensors, state = checkpoint.read(attempt.checkpoint)
    source = {**state["source"], "training/network.py": "0" * 12}
    checkpoint.write(attempt.checkpoint, tensors, {**state, "source": source})
    assert ended(worker(begun(root, SMALL))) == 0
    (run,) = plan.registry.runs()
    assert b"begun with older code of training/network.py" in run.read("log.txt")
    assert run.manifest["source"]["training/network.py"] == "0" * 12
    assert [node.stale for node in planned(root, SMALL).nodes.values()] == [("training/network.py",)]


def test_weights_are_kept_or_not_as_the_spec_says(tmp_path: Path) -> None:
    root = project(tmp_path)
    built(root, "sum", settings=[*SMALL, "resources.keep_weights=false"])
    (run,) = Registry(root / "registry").runs()
    assert WEIGHTS not in run.manifest["files"] and isinstance(run.predictions(), Predictions)
    assert not names(built(root, "sum", settings=SMALL), "started"), "it decides no id"
