"""The seam between a pool and its executors: rooms, GPUs, retries, what is found again; and what each one starts."""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import rich.console
import scaling
from builds import mtrun
from engines import Building, contents, inline, many, workers
from hypothesis import given
from hypothesis import strategies as st
from projects import project
from registries import commit, files, manifest
from runs import finish, leaf, planned

from runner.build import scheduler
from runner.build.events import Event
from runner.build.scheduler import Scheduler
from runner.cli.views import events as console
from runner.cli.views.events import Lines, Live, line
from runner.errors import DataError, RegistryError, SpecError, UsageError
from runner.plan.forecast import forecast, longest_first
from runner.registry import transfer
from runner.registry.attempt import Attempt
from runner.registry.registry import MANIFEST, PREDICTIONS, Registry
from runner.specs.job import TrainingJob
from runner.specs.spec import Leaf, Resources
from runner.worker import executor_choice, gpus, launch_script
from runner.worker.executors import Executor, Handle, Work
from runner.worker.executors.command import Command
from runner.worker.executors.local import Local
from runner.worker.executors.slurm import Slurm, _groups, _Job
from runner.worker.gpus import GpuAllocator

# GPUs ----------------------------------------------------------------------------------------------------------------


def test_a_leaf_of_unknown_size_has_a_gpu_to_itself() -> None:
    two = GpuAllocator({"0": 80_000.0, "1": 80_000.0})
    for expected in (("0",), ("1",)):
        assert two.select(1, None) == expected
        two.allocate(expected, None)
    assert two.select(1, None) is two.select(1, 10.0) is None and two.select(0, None) == ()
    two.release(("0",), None)
    assert two.select(1, 90_000.0) == ("0",), "one that is too large for any GPU may try it alone"
    assert two.select(2, None) is None


@given(st.lists(st.one_of(st.none(), st.floats(1, 50_000)), max_size=40))
def test_leaves_of_known_size_share_gpus_within_their_memory(needs: list[float | None]) -> None:
    sizes = {"0": 24_000.0, "1": 48_000.0}
    shared, on = GpuAllocator(sizes), dict[str, list[float]]()
    for need in needs:
        if names := shared.select(1, need):
            shared.allocate(names, need)
            on.setdefault(names[0], []).append(sizes[names[0]] if need is None else need * 1.2 + 800)
    for name, taken in on.items():
        assert len(taken) == 1 or sum(taken) <= sizes[name] + 1e-6


@pytest.mark.parametrize(("visible", "expected"), [
    (None, {"0": 81559.0, "1": 24564.0}), ("1", {"1": 24564.0}), ("", {}),
    ("GPU-b,0", {"GPU-b": 24564.0, "0": 81559.0})])
def test_gpus_are_those_that_may_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None,
                                         expected: dict[str, float]) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nprintf '0, GPU-a, 81559\\n1, GPU-b, 24564\\n'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus.query_memory() == expected


@pytest.fixture
def telling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a script in the place of workers, which tells its environment and waits to be let go."""
    script = tmp_path / "python"
    script.write_text('#!/bin/sh\necho "$CUDA_VISIBLE_DEVICES $OMP_NUM_THREADS" > "$4/seen"\n'
                      'while [ ! -e "$4/go" ]; do sleep 0.02; done\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return tmp_path


def test_local_workers_get_threads_and_gpus_of_their_own(telling: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "query_memory", lambda: {"0": 80_000.0, "GPU-b": 80_000.0})
    local, lease = Local(), os.open(telling, os.O_RDONLY)

    def work(name: str, **asked: Any) -> Work:
        (telling / name).mkdir()
        return Work(telling / name, Resources(**asked), lease, asked.pop("megabytes", None))

    def seen(work: Work) -> list[str]:
        while not (work.attempt / "seen").exists() or not (text := (work.attempt / "seen").read_text()):
            time.sleep(0.01)
        return text.split()

    assert local.open(telling, 7, [Resources(gpus=2)]) == 7
    with pytest.raises(UsageError, match=r"wants 3 GPUs .* has 2"):
        local.open(telling, None, [Resources(gpus=3)])
    works = [work("a", threads=3), work("b"), work("c", gpus=0), work("d", device="cpu"), work("e")]
    handles = [local.start(one) for one in works[:4] if local.has_room(one)]
    assert len(handles) == 4 and not local.has_room(works[4])
    given_ = os.environ.get("CUDA_VISIBLE_DEVICES")
    assert [seen(one) for one in works[:4]] == [["0", "3"], ["GPU-b", "1"], ["1"], [*([given_] if given_ else []), "1"]]
    (works[1].attempt / "go").touch()
    while handles[1].poll() is None:
        time.sleep(0.01)
    assert local.has_room(works[4])
    handles.append(local.start(works[4]))
    assert seen(works[4]) == ["GPU-b", "1"]
    both = work("both", gpus=2)
    assert not local.has_room(both)
    for one in works:
        (one.attempt / "go").touch()
    assert [handle.process.wait(600) for handle in handles] == [0] * 5  # type: ignore[attr-defined]
    assert [handle.poll() for handle in handles] == [0] * 5 and local.has_room(both)
    handles.append(local.start(both))
    assert seen(both) == ["0,GPU-b", "1"] and not local.has_room(work("last"))
    (both.attempt / "go").touch()
    assert handles[-1].process.wait(600) == 0  # type: ignore[attr-defined]
    os.close(lease)


# The order -----------------------------------------------------------------------------------------------------------


def test_the_longest_leaf_is_started_first(tmp_path: Path) -> None:
    root = project(tmp_path, five=('kind = "model"\nextends = "sum.toml"\n[train]\nsteps = 5\n'
                                   '[sweep]\n"train.epochs" = [1, 5, 3, 2]\n'), other=SHORT_OTHER)
    finish(root, "five", ["train.epochs=1", "train.seed=7"], seconds=10.0)
    plan = planned(root, "five", "other")
    order = longest_first(plan, plan.todo(), forecast(plan, 1))
    assert [node.name for node in order] == [f"five@epochs={n}" for n in (5,)] + ["other"] + [
        f"five@epochs={n}" for n in (3, 2, 1)], "one of unknown time counts as the longest that is known"


SHORT_OTHER = 'kind = "model"\nextends = "sum.toml"\n[encoder]\nwidth = 8\n'


def test_a_leaf_counts_what_hangs_on_it(tmp_path: Path) -> None:
    """Of two leaves of 30 and 20 s, the second is first where one of 15 s is made from it."""
    root = project(tmp_path, a='kind = "model"\nextends = "sum.toml"\n[train]\nepochs = 6\n',
                   b='kind = "model"\nextends = "sum.toml"\n[train]\nepochs = 4\n',
                   c='kind = "model"\nextends = "sum.toml"\n[train]\nepochs = 3\n')
    finish(root, "sum", seconds=10.0)
    plan = planned(root, "a", "b", "c")
    ahead, todo = forecast(plan, 1), plan.todo()
    assert [node.name for node in longest_first(plan, todo, ahead)] == ["a", "b", "c"]
    made = leaf(plan, "c")
    plan.nodes[made.id] = replace(made, members=(leaf(plan, "b").id,))
    assert [node.name for node in longest_first(plan, todo, ahead)] == ["b", "a", "c"]


# A pool --------------------------------------------------------------------------------------------------------------


class Scripted(Handle):
    """A worker that does as it is told: it runs a function at its first look and ends with what that returns."""

    def __init__(self, act: Callable[[], int | None], **facts: Any) -> None:
        self.act = act
        self.stopped = False
        for name, value in facts.items():
            setattr(self, name, value)

    def poll(self) -> int | None:
        return -15 if self.stopped else self.act()

    def stop(self, now: bool = False) -> None:
        self.stopped = True


class Scripting(Executor):
    """Starts scripted workers; class attributes, since a part is frozen."""

    type = "scripting"

    script: Any = None
    left: Any = None
    """What a job that an earlier build left is attached to."""

    def start(self, work: Work) -> Handle:
        """Start one."""
        return self.script(work)  # type: ignore[no-any-return]

    def attach(self, work: Work, job: str) -> Handle | None:
        """Find one again."""
        return self.left(work, job)  # type: ignore[no-any-return]


def trained(root: Path, executor: Executor, jobs: int = 1, **more: Any) -> list[Event]:
    plan = planned(root, "many" if (root / "specs" / "many.toml").exists() else "sum")
    return list(Scheduler(plan.registry, root, executor, jobs, **more).train(plan.todo()))


def committed(work: Work) -> int:
    """Do what a worker does that succeeds."""
    commit(Registry(work.project / "registry"), work.attempt.name)
    return 0


def kinds(events: Sequence[Event]) -> list[str]:
    return [event.event for event in events]


def test_a_leaf_that_is_preempted_goes_on_as_long_as_it_comes_further(tmp_path: Path) -> None:
    root, starts = project(tmp_path), []

    def script(work: Work) -> Handle:
        starts.append(work)
        Attempt(work.attempt).checkpoint.touch()

        def act() -> int:
            if len(starts) > 5:
                return committed(work)
            Attempt(work.attempt).report({"step": 10 * len(starts), "steps": 60, "epoch": 0, "overall": None})
            return 143
        return Scripted(act, reason="a more urgent job took its place", is_excused=True)

    events = trained(root, Scripting(script=script), retries=0)
    assert kinds(events) == ["started", "retried"] * 5 + ["started", "trained"]
    assert {e.values["reason"] for e in events if e.event == "retried"} == {"a more urgent job took its place"}


def test_a_leaf_that_never_comes_further_is_given_up(tmp_path: Path) -> None:
    def script(work: Work) -> Handle:
        return Scripted(lambda: -9, reason="its node was lost", is_excused=True, host="node7")

    events = trained(project(tmp_path), Scripting(script=script), retries=2)
    assert kinds(events) == ["started", "retried"] * 2 + ["started", "failed"]
    assert events[-1].values["problems"] == ["error: the worker ended: its node was lost"]
    assert events[-1].values["host"] == "node7" and events[-1].values["log"].endswith("log.txt")


@pytest.mark.parametrize(("code", "starts", "ended"), [
    (1, 1, "exit code 1"), (66, 1, "exit code 66"), (-9, 2, "signal 9 (Killed)"), (137, 2, "exit code 137"),
    (255, 2, "exit code 255")])
def test_crashes_are_tried_again_and_errors_are_not(tmp_path: Path, code: int, starts: int, ended: str) -> None:
    events = trained(project(tmp_path), Scripting(script=lambda work: Scripted(lambda: code)))
    assert kinds(events).count("started") == starts
    assert events[-1].event == "failed" and events[-1].values["ended"] == ended
    assert ended in line(events[-1])


def test_a_run_that_a_shared_file_system_shows_late_is_waited_for(tmp_path: Path) -> None:
    def script(work: Work) -> Handle:
        threading.Timer(0.3, committed, [work]).start()
        return Scripted(lambda: 0)

    assert kinds(trained(project(tmp_path), Scripting(script=script))) == ["started", "trained"]


def test_room_is_kept_to_and_smaller_leaves_go_ahead(tmp_path: Path) -> None:
    """Six leaves, two at a time; the first that is asked about has no room until another one has ended."""
    root, running, most = many(tmp_path, 6), list[str](), [0]

    class Narrow(Scripting):
        def has_room(self, work: Work) -> bool:
            return bool(ended) or work.attempt.name != blocked

        def start(self, work: Work) -> Handle:
            running.append(work.attempt.name)
            most[0] = max(most[0], len(running))
            looks = iter([None, None])

            def act() -> int | None:
                if (code := next(looks, 0)) is None:
                    return None
                running.remove(work.attempt.name)
                ended.append(work.attempt.name)
                return committed(work) + code
            return Scripted(act)

    plan = planned(root, "many")
    ended, blocked = list[str](), plan.todo()[0].id
    events = list(Scheduler(plan.registry, root, Narrow(), 2).train(plan.todo()))
    assert kinds(events).count("trained") == 6 and most == [2]
    assert [e.id for e in events if e.event == "started"].index(blocked) == 2


def test_what_was_left_to_an_engine_is_found_again(tmp_path: Path) -> None:
    root, started = many(tmp_path, 3), list[str]()

    class Lasting(Scripting):
        outlives = True

        def start(self, work: Work) -> Handle:
            started.append(work.attempt.name)
            Attempt(work.attempt).record_job("scripting", f"job-{work.attempt.name}")
            return Scripted(lambda: None, is_waiting=True)

    left = trained(root, Lasting(), 9, detach=True)
    assert kinds(left) == ["started"] * 3 + ["detached"] * 3 and all(e.values["queued"] for e in left[:3])
    assert "left to scripting job-" in line(left[-1])
    assert not [*(root / "registry" / ".attempts").glob("*.lock")]
    gone = started[1]

    def attach(work: Work, job: str) -> Handle | None:
        assert job == f"job-{work.attempt.name}"
        return None if work.attempt.name == gone else Scripted(lambda: committed(work))

    started.clear()
    events = trained(root, Scripting(left=attach, script=lambda work: started.append(work.attempt.name)
                                     or Scripted(lambda: committed(work))), 9)
    assert kinds(events).count("trained") == 3 and started == [gone]
    assert sum("job" in e.values for e in events if e.event == "started") == 2


CHAIN = {
    "next": 'kind = "model"\nextends = "sum.toml"\nstart = "sum.toml"\n',
    "last": 'kind = "model"\nextends = "sum.toml"\nstart = "next.toml"\n',
    "slow": 'kind = "model"\nextends = "sum.toml"\n[train]\nepochs = 9\n',
}


def test_a_leaf_begins_as_soon_as_what_it_is_made_of_is_there(tmp_path: Path) -> None:
    """`slow` ends only once `last` was begun, which begins with `next`, which begins with `sum`."""
    plan = planned(project(tmp_path, **CHAIN), "last", "slow")
    begun, titles = list[str](), {node.id: node.title for node in plan.nodes.values()}

    def script(work: Work) -> Handle:
        name = titles[work.attempt.name]
        begun.append(name)
        return Scripted(lambda: None if name == "slow" and "last" not in begun else committed(work))

    leaves = plan.todo()[::-1]  # whatever their order
    events = list(Scheduler(plan.registry, tmp_path, Scripting(script=script), 2).train(leaves, plan.awaited(leaves)))
    assert begun == ["slow", "sum", "next", "last"] and kinds(events).count("trained") == 4


def test_what_is_made_of_a_failed_leaf_is_not_begun(tmp_path: Path) -> None:
    plan = planned(project(tmp_path, **CHAIN), "last", "slow")
    bad = next(node.id for node in plan.nodes.values() if node.name == "sum")
    script = Scripting(script=lambda work: Scripted(lambda: 1 if work.attempt.name == bad else committed(work)))
    scheduler = Scheduler(plan.registry, tmp_path, script, 1)
    events = [(event.event, event.name) for event in scheduler.train(plan.todo(), plan.awaited(plan.todo()))]
    assert sorted(events) == [("failed", "sum"), ("started", "slow"), ("started", "sum"), ("trained", "slow")]


def test_giving_up_takes_back_what_waits(tmp_path: Path) -> None:
    root = many(tmp_path, 3)
    plan = planned(root, "many")
    first = plan.todo()[0].id

    def script(work: Work) -> Handle:
        is_first = work.attempt.name == first
        return Scripted(lambda: 1 if is_first else None, is_waiting=not is_first)

    giving, seen = Scheduler(plan.registry, root, Scripting(script=script), 9), []
    for event in giving.train(plan.todo()):
        seen.append(event)
        if event.event == "failed":
            giving.give_up()
    assert kinds(seen) == ["started"] * 3 + ["failed"]


def test_a_terminal_shows_all_that_run_and_counts_those_that_wait() -> None:
    live = Live()
    live.show(Event("planned", values={"nodes": 4, "train": 4}))
    for name, queued in (("a", {}), ("b", {"queued": True}), ("c", {"queued": True}), ("d", {"queued": True})):
        live.show(Event("started", name, name, {"resumed": False, **queued}))
    shown = {"step": 3, "steps": 9, "epoch": 0, "overall": None}
    live.show(Event("progress", "c", "c", shown))
    live.show(Event("progress", "a", "a", shown))
    bars = live.progress.tasks
    assert [bar.description for bar in bars] == ["all leaves", "a", "c"]
    assert bars[0].fields["note"] == "2 running, 2 queued"
    live.show(Event("trained", "a", "a", {"seconds": 1.0}))
    live.show(Event("retried", "c", "c", {"reason": "its node was lost", "host": "n1"}))
    live.show(Event("failed", "d", "d", {"problems": ["error: x"]}))
    assert [bar.description for bar in bars if bar.id in live.progress.task_ids] == ["all leaves"]
    assert (bars[0].completed, live.progress.tasks[0].fields["note"]) == (2, "0 running, 1 queued")


def test_a_terminal_tells_the_time_left_in_sixty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leaf resumed at step 100 of 1,100 that makes 10 steps a second; leaves that take 120 s, two at a time."""
    live, clock = Live(), itertools.count(0, 20)
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    live.show(Event("planned", values={"nodes": 8, "train": 7}))
    for name in ("a" * 30, "b", "c"):
        live.show(Event("started", name, name, {"resumed": name == "b"}))
    for step in (100, 300):
        live.show(Event("progress", "b", "b", {"step": step, "steps": 1100, "epoch": 0, "overall": None}))
    live.show(Event("trained", "c", "c", {"seconds": 120.0}))
    bars = {bar.description: bar.fields for bar in live.progress.tasks}
    assert (bars["b"]["done"], bars["b"]["left"]) == ("27%", "80 s")
    assert (bars["all leaves"]["done"], bars["all leaves"]["left"]) == ("1/7", "6 min")
    assert bars["a" * 30]["done"] == bars["a" * 30]["left"] == ""
    screen = io.StringIO()
    rich.console.Console(width=100, file=screen, force_terminal=True, color_system=None).print(live.progress)
    rows = screen.getvalue().splitlines()
    assert len(rows) == 3 and all(len(row.rstrip()) <= 60 for row in rows), rows


def test_plain_lines_say_now_and_then_how_far_a_leaf_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute is 150 steps, told of every 20th: a line every 160 steps, and none at the end."""
    now, out = 0.0, io.StringIO()
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    lines = Lines(out)
    lines.show(Event("started", "a", "x", {"resumed": False}))
    for step in range(0, 1001, 20):
        now = step * 0.4
        shown = {"step": step, "steps": 1000, "epoch": step // 500, "overall": 0.5 if step >= 500 else None}
        lines.show(Event("progress", "a", "x", shown))
    wanted = [f"a: step {step} of 1000, epoch {1 + step // 500}" + ", dev 0.500" * (step >= 500)
              for step in range(160, 1000, 160)]
    assert out.getvalue().splitlines() == ["a: training", *wanted]


@pytest.mark.parametrize(("scores", "said"), [
    ({"dev": {"x": 0.25, "y": 0.75, "overall": 0.5}, "test": {"x": None, "y": None, "overall": None}}, "a: dev 0.500"),
    ({"dev": {"x": 0.25, "y": 0.75, "overall": None}, "test": {"x": 0.5, "overall": None}},
     "a: dev x 0.250, y 0.750, test x 0.500"),
    ({"dev": {"overall": None}}, ""), ({}, "")])
def test_a_node_that_lacks_a_task_tells_the_scores_that_it_has(scores: dict[str, dict[str, float]], said: str) -> None:
    assert line(Event("scored", "a", "x", {"scores": scores})) == said


def test_the_simulation_takes_as_long_as_the_leaves_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three leaves of 3.5 s and three of 1.5 s on two nodes: 3.5 + 3.5 on one, 3.5 + 3 * 1.5 on the other."""
    monkeypatch.setattr(scheduler, "time", time)  # to be put back afterwards
    began = time.perf_counter()
    row = [cell.strip() for cell in scaling.simulate([3.0, 1.0], 6, 2, 0.5).split("|")]
    assert row[1:4] == ["6", "2", "8 s"] and 8 <= int(row[4].removesuffix(" s")) <= 8 + time.perf_counter() - began + 1


# Orders and launches -------------------------------------------------------------------------------------------------


def begun(root: Path, **more: Any) -> tuple[TrainingJob, Attempt]:
    (node,) = planned(root, "sum").nodes.values()
    assert isinstance(node.spec, Leaf)
    order = TrainingJob(node.id, node.name, root, node.spec.model, **more)
    attempt = Attempt(root / "registry" / ".attempts" / node.id)
    attempt.begin(order.to_bytes(), order.replaces)
    return order, attempt


def test_a_worker_refuses_to_train_with_other_code_than_the_builds(tmp_path: Path) -> None:
    from runner.specs.identity import fingerprints
    from runner.worker.supervisor import Supervisor
    from runner.worker.worker import run

    order, attempt = begun(project(tmp_path))
    mine = fingerprints(order.model)
    replace(order, source=mine).check_code()
    with pytest.raises(DataError, match=r"the code of heads/cosine.py, train.py is not that"):
        replace(order, source=mine | {"train.py": "0" * 12, "heads/cosine.py": "1" * 12}).check_code()
    attempt.begin(replace(order, source=mine | {"train.py": "0" * 12}).to_bytes())
    assert run(Supervisor(attempt)) == 2 and "the code of train.py" in attempt.problems()[0]
    assert not [*(tmp_path / "registry").glob("[0-9a-f]*")]


def shell(attempt: Path, lines: str) -> int:
    return subprocess.run(["sh", "-c", f"attempt='{attempt}'; {lines}"], check=False).returncode


def test_a_launch_runs_where_the_token_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_script, "TRIES", 0)
    monkeypatch.setenv("MTRUN_DATA", "/data/it's here")
    root = tmp_path / "a project"
    _, attempt = begun(project(root))
    python = tmp_path / "some python"
    python.write_text('#!/bin/sh\necho "$4|$MTRUN_DATA|$OMP_NUM_THREADS|$MODULES|$PWD"\nexit 3\n')
    python.chmod(0o755)
    token, setup = attempt.write_token(), ("export MODULES=cuda",)
    lines = launch_script.lines(token, root, Resources(threads=5), str(python), setup)
    assert shell(attempt.folder, lines) == 3
    assert attempt.log.read_text() == f"{attempt.folder}|/data/it's here|5|cuda|{root}\n"
    attempt.write_token()  # as a copy of the folder on another machine would have it: not this token
    assert shell(attempt.folder, lines) == launch_script.UNSHARED
    assert shell(tmp_path / "nowhere", lines) == launch_script.UNSHARED


def test_a_command_takes_another_host_where_one_does_not_answer(tmp_path: Path) -> None:
    """A script stands for `ssh`: one host is down, and two are well."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "import sys; from pathlib import Path; '
                      f"sys.path[:0] = ['{Path(scaling.__file__).parent}']; from registries import commit; "
                      'from runner.registry import Registry; a = Path(sys.argv[4]); '
                      'commit(Registry(a.parents[1]), a.name)" "$@"\n')
    python.chmod(0o755)
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\n[ "$1" = down ] && { echo no route to host; exit 255; }\n'
                   'exec sh -c "$2"\n')
    ssh.chmod(0o755)
    root = many(tmp_path / "project", 4)
    executor = Command(template=f"{ssh} {{host}} {{command}}", hosts=("down", "one", "two"), python=str(python))
    events = trained(root, executor, jobs=9)
    assert kinds(events).count("trained") == 4 and kinds(events).count("retried") == 1
    (retried,) = [event for event in events if event.event == "retried"]
    assert retried.values["reason"] == "no connection to down" and retried.values["host"] == "down"
    log = (root / "registry" / retried.id / "log.txt")
    assert Registry(root / "registry").find(retried.id) and log.exists()


def test_a_command_without_a_shared_folder_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_script, "TRIES", 0)
    executor = Command(template="bash -c 'true; exit 66' {host} {command}", hosts=("far",))
    events = trained(project(tmp_path), executor)
    assert kinds(events) == ["started", "failed"]
    assert "far does not see" in events[-1].values["problems"][0]


def test_a_worker_that_no_signal_reaches_is_stopped_by_a_file(tmp_path: Path) -> None:
    root = many(tmp_path, 1, "[train]\nepochs = 1000\nsteps = 60\n")
    build = Building(root, "--executor", "command", "--set", "executor.template=bash -c {command}", "--set",
                     'executor.hosts=["here"]')
    build.until("progress")
    build.process.terminate()
    assert build.end() == 143, build.error()
    (attempt,) = (root / "registry" / ".attempts").iterdir()
    assert (attempt / "checkpoint.safetensors").is_file() and not workers(root)


# Slurm's scripts -----------------------------------------------------------------------------------------------------


def test_a_script_asks_for_what_the_leaves_need(tmp_path: Path) -> None:
    asked = Resources(threads=4, gpus=2, memory=9000, minutes=90, partition="long", account="me",
                      extra=("--constraint=a100", "--exclusive"))
    works = [Work(tmp_path / "registry" / ".attempts" / id, asked, 0) for id in ("a" * 12, "b" * 12)]
    for work in works:
        work.attempt.mkdir(parents=True)
    text = Slurm(setup=("module load cuda",), python="/opt/python").script(works, 8)
    head = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]
    assert head == ["--array=0-1%8", "--job-name=mtrun", "--no-requeue", "--ntasks=1", "--output=/dev/null",
                    f"--chdir={tmp_path}", "--cpus-per-task=8", "--gres=gpu:2", "--mem=9000M", "--time=90",
                    "--signal=B:TERM@60", "--partition=long", "--account=me", "--constraint=a100", "--exclusive"]
    assert "\nmodule load cuda\n" in text and "/opt/python -P -m runner.worker" in text
    for number, work in enumerate(works):  # each task finds its own attempt and token
        echo = text.replace("exec env", "echo") + f'\necho "$attempt" > {tmp_path}/said\n'
        environment = os.environ | {"SLURM_ARRAY_TASK_ID": str(number)}
        subprocess.run(["sh"], input=echo.replace("module load cuda", ":"), text=True, env=environment, check=True)
        assert str(work.attempt) in (work.attempt / "log.txt").read_text()


def test_leaves_of_equal_resources_are_one_array(tmp_path: Path) -> None:
    slurm = Slurm()
    small, large = Resources(), Resources(memory=64_000)
    jobs = [_Job(Work(tmp_path / str(n), large if n % 3 == 0 else small, 0), slurm._queue) for n in range(3000)]
    groups = list(_groups(jobs))
    assert sorted(len(group) for group in groups) == [1000, 1000, 1000]
    assert all(len({job.work.resources for job in group}) == 1 for group in groups)
    numbers = [int(job.work.attempt.name) for group in groups for job in group if job.work.resources == small]
    assert numbers == sorted(numbers), "the longest leaves come first in each array"


# Deliveries ----------------------------------------------------------------------------------------------------------


def test_a_run_that_comes_from_elsewhere_is_checked_byte_by_byte(tmp_path: Path) -> None:
    order, _ = begun(project(tmp_path / "project"))
    there = Registry(tmp_path / "there" / "registry")
    run = commit(there, order.id)
    sent = transfer.run_files(there, order.id)
    here = Registry(tmp_path / "project" / "registry")
    other = {path.name: path.read_bytes() for path in commit(there, "c" * 12).folder.iterdir()}
    wrong = [other, {**sent, "more": b""}, {name: data for name, data in sent.items() if name != PREDICTIONS},
             {name: data for name, data in sent.items() if name != MANIFEST}]
    wrong += [{**sent, name: data[:place] + bytes([data[place] ^ 4]) + data[place + 1:]}
              for name, data in sent.items() if data for place in (0, len(data) // 2, len(data) - 1)]
    for delivery in wrong:
        with pytest.raises(RegistryError):
            transfer.receive(here, order.id, delivery)
        assert here.ids() == []
    assert len(wrong) > 9
    received = transfer.receive(here, order.id, sent)
    received.verify()
    same = {name: received.read(name) for name in received.manifest["files"]}
    assert same == {name: run.read(name) for name in run.manifest["files"]} == files(0)
    assert {**received.manifest} == {**run.manifest} and manifest().items() <= {**received.manifest}.items()


# The command line ----------------------------------------------------------------------------------------------------


def test_settings_of_the_executor_are_checked_as_those_of_a_spec(tmp_path: Path) -> None:
    models, own = executor_choice.split_settings(["train.epochs=1", "executor.hosts=['a','b']", "executor.leaves=3"])
    assert models == ["train.epochs=1"]
    root = project(tmp_path)
    made = executor_choice.choose("command", own, root, "demo")
    assert isinstance(made, Command) and (made.hosts, made.leaves) == (("a", "b"), 3)
    for name, settings, said in (("comand", [], "did you mean `command`?"),
                                 ("command", ["executor.hots=['a']"], "did you mean `hosts`?"),
                                 ("slurm", ["executor.poll_seconds=0"], "poll_seconds"),
                                 ("local", ["executor.leaves=1"], "unknown key `leaves`")):
        with pytest.raises(SpecError) as error:
            executor_choice.choose(name, settings, root, "demo")
        assert said in error.value.render() and "command line" in error.value.render()


def test_a_profile_may_name_the_executor(tmp_path: Path) -> None:
    root = project(tmp_path)
    before = [*planned(root, "sum").nodes]
    profiles = root / "specs" / "profiles"
    profile = (profiles / "demo.toml").read_text()
    (profiles / "base.toml").write_text('executor = "slurm"\n' + profile)
    (profiles / "demo.toml").write_text('extends = "base.toml"\n[executor]\npoll_seconds = 2.0\n')

    def named(name: str | None, *settings: str) -> tuple[str, float | None]:
        made = executor_choice.choose(name, settings, root, "demo")
        return made.type, getattr(made, "poll_seconds", None)

    assert [*planned(root, "sum").nodes] == before, "it decides no result"
    assert named(None) == named("slurm") == ("slurm", 2.0)
    assert named(None, "executor.poll_seconds=3") == ("slurm", 3.0) and named("local") == ("local", None)
    assert executor_choice.choose(None, [], root, "base").type == "slurm"
    (profiles / "demo.toml").write_text(profile + '[executor]\ntype = "slurm"\npoll_second = 2.0\n')
    with pytest.raises(SpecError) as error:
        named(None)
    assert "did you mean `poll_seconds`?" in error.value.render() and "demo.toml:" in error.value.render()
    (profiles / "demo.toml").write_text(profile)
    (root / "specs" / "sum.toml").write_text((root / "specs" / "sum.toml").read_text() + '[executor]\ntype = "slurm"\n')
    with pytest.raises(SpecError, match="unknown key `executor`"):
        planned(root, "sum")


@pytest.mark.parametrize(("arguments", "said"), [
    (["--detach"], "`--detach` cannot be meant: the workers of `local` end with the build"),
    (["--executor", "slurm"], "there is no Slurm on this machine: sbatch"),
    (["--executor", "ray", "--set", "executor.address=127.0.0.1:9"], "no Ray cluster at `127.0.0.1:9`"),
    (["--set", "resources.gpus=64"], "a leaf wants 64 GPUs"),
])
def test_an_engine_that_is_not_there_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                      arguments: list[str], said: str) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    root = project(tmp_path)
    build = mtrun(root, "build", "specs/sum.toml", *arguments)
    _, err = build.communicate(timeout=600)
    assert build.returncode == 2 and said in err and "Traceback" not in err
    assert not [*(root / "registry" / ".attempts").glob("*")]


@pytest.mark.long
def test_eight_at_a_time_give_the_bytes_of_one_at_a_time(tmp_path: Path) -> None:
    for jobs in ("1", "8"):
        build = Building(many(tmp_path / jobs, 8), "-j", jobs)
        assert build.end() == 0, build.error()
    assert contents(tmp_path / "1") == contents(tmp_path / "8") == contents(inline(tmp_path / "inline", 8))
