"""gc, rm and import beside commands that run: what these need stays, and what the dead needed does not."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import runs
from projects import project
from registries import files, manifest
from systems import SPECS, mtrun

from runner.build import retention
from runner.build.build import Build
from runner.build.bundle import bundle, import_bundle
from runner.build.events import Event
from runner.build.gc import Scan, delete, existing_names, move_away
from runner.build.retention import Retention
from runner.cli import options
from runner.errors import StorageError
from runner.files import remove
from runner.plan.plan import Plan
from runner.registry import reservations
from runner.registry.attempt import Attempt
from runner.registry.registry import Registry
from runner.registry.reservations import read_reservations, removal, reserved

SET = ("--set", "train.seed=77", "--executor", "inline")
HOLDER = """
import sys, time
from pathlib import Path
from runner.registry import Registry
from runner.registry.reservations import reserved
with reserved(Registry(Path(sys.argv[1]))) as mine:
    if sys.argv[2:]:
        mine.hold(sys.argv[2:])
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return project(tmp_path, **SPECS)


def registry_of(root: Path) -> Registry:
    return Registry(root / "registry")


def add(root: Path, id: str, name: str = "junk") -> None:
    """Put a run into the registry to which nothing refers."""
    registry_of(root).commit(id, files(), manifest(name=name))


def gc(root: Path) -> str:
    done = mtrun(root, "gc")
    assert done.code == 0, done.err
    return done.out + done.err


def beside(monkeypatch: pytest.MonkeyPatch, act: Callable[[Event], object]) -> None:
    """Have something done after each event of a build."""
    events = Build.events

    def watched(self: Build) -> Iterator[Event]:
        for event in events(self):
            yield event
            act(event)

    monkeypatch.setattr(Build, "events", watched)


# A build -------------------------------------------------------------------------------------------------------------


def test_gc_after_every_event_of_a_build_with_settings(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(root, "aaaaaaaaaaaa")
    seen = []
    beside(monkeypatch, lambda event: seen.append((event.event, gc(root))))
    done = mtrun(root, "build", "specs/deep.toml", *SET)
    assert done.code == 0, done.err
    assert [name for name, _ in seen].count("trained") == 2 and "aaaaaaaaaaaa" in seen[0][1]
    ids = registry_of(root).ids()
    assert len(ids) == 2 and any("2 runs are kept for process" in said for _, said in seen)
    gc(root)
    assert registry_of(root).ids() == ids, "now the published result keeps them"
    remove(root / "results")
    gc(root)
    assert not registry_of(root).ids()


def test_what_a_build_reuses_stays_though_its_spec_is_removed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mtrun(root, "build", "specs/sum.toml", *SET).code == 0
    remove(root / "results")
    planned = options.load_plan

    def gone(*arguments: Any) -> Plan:
        plan = planned(*arguments)
        for name in ("sum", *SPECS):
            (root / "specs" / f"{name}.toml").unlink()
        assert "kept for process" in gc(root)  # before the build has said what it needs
        return plan

    monkeypatch.setattr(options, "load_plan", gone)
    beside(monkeypatch, lambda event: gc(root))
    done = mtrun(root, "build", "specs/mean.toml", "--json", *SET)
    assert done.code == 0, done.err
    events = [json.loads(line)["event"] for line in done.out.splitlines()]
    assert events.count("trained") == 1 and events.count("reused") == 1


def test_work_that_waits_for_its_turn_stays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = runs.planned(root, "mean", settings=["train.seed=77"])
    for node in plan.todo():
        plan.registry.attempt(node.id).mkdir(parents=True)
        (plan.registry.attempt(node.id) / "checkpoint.safetensors").touch()
    left = {}
    beside(monkeypatch, lambda event: left.setdefault(event.event, (gc(root), os.listdir(plan.registry.attempts))[1]))
    assert mtrun(root, "build", "specs/mean.toml", *SET).code == 0
    assert {node.id for node in plan.todo()} <= set(left["planned"])


def test_what_a_build_publishes_while_gc_reads_the_specs_stays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(root, "aaaaaaaaaaaa")
    assert mtrun(root, "build", "specs/sum.toml", *SET).code == 0
    remove(root / "results")
    of = Retention.of

    def slow(path: Path) -> Retention:
        found = of(path)
        monkeypatch.setattr(Retention, "of", of)
        assert mtrun(root, "build", "specs/mean.toml", *SET).code == 0  # reuses one run, trains another
        assert not read_reservations(registry_of(root)).all
        add(root, "bbbbbbbbbbbb")  # of a spec that is new, perhaps
        return found

    monkeypatch.setattr(retention.Retention, "of", slow)
    assert "aaaaaaaaaaaa" in gc(root) and len(registry_of(root).ids()) == 3
    assert mtrun(root, "predict", "specs/mean.toml", "A film.", "--set", "train.seed=77").code == 0


def test_a_command_that_only_reads_keeps_what_it_reads(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mtrun(root, "build", "specs/mean.toml", *SET).code == 0
    remove(root / "results")
    from runner.plan import predict

    finished, said = predict.finished, []

    def slow(plan: Plan, node: str) -> Any:
        found = finished(plan, node)
        said.append(gc(root))
        refused = mtrun(root, "rm", "--weights", "--force", *found)
        assert refused.code == 2 and f"is needed by process {os.getpid()}" in refused.err
        return found

    monkeypatch.setattr(predict, "finished", slow)
    settings = ("--set", "train.seed=77")
    assert mtrun(root, "predict", "specs/mean.toml", "A film.", *settings).code == 0
    assert mtrun(root, "export", "specs/mean.toml", "-o", "b.zip", *settings).code == 0
    assert len(said) >= 2 and len(registry_of(root).ids()) == 2
    assert not list((root / "registry" / ".builds").iterdir())


def test_an_import_keeps_what_it_has_brought(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mtrun(root, "build", "specs/mean.toml", *SET).code == 0
    assert mtrun(root, "export", "specs/mean.toml", "-o", "b.zip", "--set", "train.seed=77").code == 0
    new, take_run = project(tmp_path / "new"), import_bundle._copy_run

    def slow(*arguments: Any) -> bool:
        is_new = take_run(*arguments)
        gc(new)
        return is_new

    monkeypatch.setattr(import_bundle, "_copy_run", slow)
    with bundle.opened(root / "b.zip") as held:
        (new / "specs" / "sum.toml").unlink()
        (new / "specs" / "suites" / "tiny.toml").unlink()
        (new / "specs" / "profiles" / "demo.toml").unlink()
        import_bundle.import_into(held, new)
    assert len(registry_of(new).ids()) == 2 and mtrun(new, "verify").code == 0


# Processes that live, sleep and die ----------------------------------------------------------------------------------


def held(root: Path, *ids: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(root / "registry"), *ids], text=True,
                               stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("ids", [(), ("aaaaaaaaaaaa",)], ids=["any", "one"])
def test_a_process_that_is_stopped_keeps_its_runs_and_one_that_was_killed_does_not(root: Path, ids: tuple[str]) -> None:
    add(root, "aaaaaaaaaaaa")
    add(root, "bbbbbbbbbbbb")
    process = held(root, *ids)
    os.kill(process.pid, signal.SIGSTOP)
    lock = next((root / "registry" / ".builds").glob("*.lock"))
    os.utime(lock, (0, 0))  # on one machine no time counts
    said = gc(root)
    assert f"kept for process {process.pid} on {os.uname().nodename}" in said
    assert registry_of(root).ids() == (["aaaaaaaaaaaa"] if ids else ["aaaaaaaaaaaa", "bbbbbbbbbbbb"])
    refused = mtrun(root, "rm", "--force", "aaaaaaaaaaaa")
    assert refused.code == 2 and f"needed by process {process.pid}" in refused.err
    process.kill()
    process.wait()
    lock.with_name(f".{lock.stem}.json.{process.pid}").touch()  # as of one that died while it wrote its ids
    gc(root)
    assert not registry_of(root).ids()
    assert not list((root / "registry" / ".builds").iterdir()), "what the dead left is gone"


def test_a_process_of_another_machine_counts_as_long_as_it_shows_itself(root: Path) -> None:
    add(root, "aaaaaaaaaaaa")
    folder = root / "registry" / ".builds"
    folder.mkdir()
    (folder / "x.lock").write_text(json.dumps({"host": "elsewhere", "boot": "x", "pid": 5}))
    (folder / "x.json").write_text('{"ids": ["aaaaaaaaaaaa"]}')
    assert "1 run is kept for process 5 on elsewhere" in gc(root)
    os.utime(folder / "x.lock", (0, 0))
    gc(root)
    assert not registry_of(root).ids() and not list(folder.iterdir())


@pytest.mark.parametrize("said", ["", "{", "[]", "{}", '{"ids": 3}', "null", "\xff"])
def test_a_reservation_that_says_nothing_right_is_for_all(root: Path, said: str) -> None:
    add(root, "aaaaaaaaaaaa")
    with reserved(registry_of(root)) as mine:
        (root / "registry" / ".builds" / f"{mine.name}.json").write_bytes(said.encode("latin-1"))
        gc(root)
        assert registry_of(root).ids()
        mine.hold([])
        gc(root)
        assert not registry_of(root).ids()


def test_where_nothing_can_be_written_reading_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise StorageError("cannot lock it")

    monkeypatch.setattr(reservations.leases, "held", refuse)
    with reserved(registry_of(root)) as mine:
        mine.hold(["aaaaaaaaaaaa"])
    assert not (root / "registry" / ".builds").exists()
    with pytest.raises(StorageError), removal(registry_of(root)):
        pass


def _build(folder: Path, rounds: int, wrong: Any) -> None:
    """Be a command that looks what is there, and later relies on it; make what is missing."""
    registry = Registry(folder)
    for number in range(rounds):
        id = f"{number % 3:012x}"
        with reserved(registry) as mine:
            was_there = registry.find(id) is not None
            mine.hold([id])
            if not was_there:
                registry.commit(id, files(), manifest())
            run = registry.find(id)
            if run is None:
                wrong.put(f"{id} is gone, {'found' if was_there else 'made'} in round {number}")
            else:
                run.verify()


def _remove(folder: Path, stop: Any, wrong: Any, removed: Any) -> None:
    """Be gc, again and again, in a registry to which nothing refers."""
    registry = Registry(folder)
    while not stop.is_set():
        known = existing_names(registry)
        with removal(registry) as others:
            found = list(Scan(registry, Retention(), others, known).garbage())
            places = [move_away(registry, one) for one in found]
        for one, place in zip(found, places, strict=True):
            if place is not None:
                delete(registry, one, place)
                with removed.get_lock():
                    removed.value += one.path.parent == registry.root


def test_builds_and_gcs_at_a_time(tmp_path: Path) -> None:
    context, rounds = multiprocessing.get_context("fork"), 150
    wrong, stop, removed = context.SimpleQueue(), context.Event(), context.Value("i", 0)
    folder = tmp_path / "registry"
    builds = [context.Process(target=_build, args=(folder, rounds, wrong)) for _ in range(3)]
    gcs = [context.Process(target=_remove, args=(folder, stop, wrong, removed)) for _ in range(2)]
    for process in (*builds, *gcs):
        process.start()
    for process in builds:
        process.join()
    stop.set()
    for process in gcs:
        process.join()
    assert [process.exitcode for process in (*builds, *gcs)] == [0] * 5
    assert wrong.empty(), wrong.get()
    print(f"\n3 builds of {rounds} rounds beside 2 gcs: {removed.value} runs removed, none that was needed")
    assert removed.value > 10


# Work that was left to an engine -------------------------------------------------------------------------------------


def test_what_a_detached_build_made_stays_till_a_build_has_finished_it(root: Path) -> None:
    registry = registry_of(root)
    plan = runs.planned(root, "mean", settings=["train.seed=77"])
    first, second = (node.id for node in plan.todo())
    with reserved(registry) as mine:
        mine.hold(plan.nodes)
        Attempt(registry.attempt(first)).folder.mkdir(parents=True)
        mine.detach()
    assert "kept for a build that left its leaves to an engine" in gc(root)
    remove(registry.attempt(first))
    add(root, first)
    add(root, "aaaaaaaaaaaa")
    gc(root)
    assert registry.ids() == [first]
    refused = mtrun(root, "rm", first)
    assert refused.code == 2 and "a build that left its leaves to an engine" in refused.err and "--force" in refused.err
    with reserved(registry) as mine:
        mine.hold([second])
        mine.clear_detached()
    gc(root)
    assert registry.ids() == [first], "that was another build"
    with reserved(registry) as mine:
        mine.hold(plan.nodes)
        mine.clear_detached()
    gc(root)
    assert not registry.ids()


def test_what_a_detached_build_left_is_forgotten_once_all_is_removed(root: Path) -> None:
    add(root, "aaaaaaaaaaaa")
    with reserved(registry_of(root)) as mine:
        mine.hold(["aaaaaaaaaaaa"])
        mine.detach()
    assert mtrun(root, "rm", "--force", "aaaaaaaaaaaa").code == 0
    gc(root)
    assert not list((root / "registry" / ".builds").iterdir())


@pytest.mark.parametrize(("values", "left"), [
    ({"detached": 2, "failed": 0}, 1), ({"failed": 0}, 0), ({"failed": 1}, 0)], ids=["detached", "done", "failed"])
def test_the_command_leaves_a_reservation_where_it_is_detached(root: Path, monkeypatch: pytest.MonkeyPatch,
                                                              values: dict[str, int], left: int) -> None:
    def events(self: Build) -> Iterator[Event]:
        self.plan.registry.attempt(self.plan.todo()[0].id).mkdir(parents=True)  # as a worker in a queue has one
        yield Event("done", values={"nodes": 3, "trained": 0, **values})

    monkeypatch.setattr(Build, "events", events)
    assert mtrun(root, "build", "specs/mean.toml", *SET).code == min(1, values["failed"])
    found = list(read_reservations(registry_of(root)))
    assert len(found) == left and all(need.is_detached and len(need.ids) == 3 for need in found)
    monkeypatch.undo()
    assert mtrun(root, "build", "specs/mean.toml", *SET).code == 0
    assert not list((root / "registry" / ".builds").iterdir()), "the same build has finished it"
