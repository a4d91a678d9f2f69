"""A real Slurm of two nodes: the same bytes as without it, whatever is killed, stopped or left alone."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.slurm import Slurm, cluster, missing
from engines import LONGER, SHORT, Building, await_clearing, contents, inline, kill_a_worker, many, patiently, workers

from runner.registry.attempt import Attempt

pytestmark = pytest.mark.cluster

ON_SLURM = ("--executor", "slurm", "--set", "executor.poll_seconds=1")


@pytest.fixture(scope="module")
def started() -> Iterator[Slurm]:
    if why := missing():
        pytest.skip(f"no Slurm can be started here: {why}")
    with contextlib.ExitStack() as stack:
        try:
            slurm = stack.enter_context(cluster())
        except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no Slurm can be started here: {error}")
        yield slurm


@pytest.fixture
def slurm(started: Slurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """The cluster, whose queue must be empty when a test has ended."""
    monkeypatch.setenv("SLURM_CONF", str(started.conf))
    yield started
    for _ in patiently("a queue that does not empty"):
        if not started.ask("squeue", "--noheader").split():
            break
    started.wait("idle", 120)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What four longer leaves come to."""
    return contents(inline(tmp_path_factory.mktemp("inline"), 4, LONGER))


def queued(slurm: Slurm) -> list[str]:
    """Return the states of all jobs that are in the queue, but for those that are being cleared away."""
    states = slurm.ask("squeue", "--noheader", "--array", "--format=%T").split()
    return [state for state in states if state != "COMPLETING"]


def test_fifty_leaves_are_those_of_inline(slurm: Slurm, tmp_path: Path, leaves: int = 50) -> None:
    root = many(tmp_path / "slurm", leaves)
    began = time.monotonic()
    build = Building(root, *ON_SLURM, "-j", "6")
    assert build.end() == 0, build.error()
    assert contents(root) == contents(inline(tmp_path / "inline", leaves))
    print(f"\n{leaves} leaves as one array of jobs, 6 at a time, in {time.monotonic() - began:.0f} s")
    assert {event["queued"] for event in build.seen if event["event"] == "started"} == {True}
    await_clearing(root)


def test_a_killed_worker_is_started_again(slurm: Slurm, tmp_path: Path, whole: dict[str, bytes]) -> None:
    build = Building(many(tmp_path, 4, LONGER), *ON_SLURM)
    id = kill_a_worker(tmp_path, build.until("progress")["id"])
    assert build.end() == 0, build.error()
    (retried,) = [event for event in build.seen if event["event"] == "retried"]
    assert retried["id"] == id and retried["reason"] == "signal 9 (Killed)"
    assert retried["host"] in ("node1", "node2") and retried["megabytes"] > 100
    assert contents(tmp_path) == whole


def test_a_lost_node_costs_its_running_leaves_only(slurm: Slurm, tmp_path: Path, whole: dict[str, bytes]) -> None:
    root = many(tmp_path, 4, LONGER + "cpus = 2\n")  # two leaves on each node
    build = Building(root, *ON_SLURM)
    hosts = {}
    while len(hosts) < 4:
        event = build.until("progress")
        hosts[event["id"]] = event["host"]
    began = time.monotonic()
    slurm.kill("node2")
    retried = [build.until("retried") for _ in range(2)]
    took = time.monotonic() - began
    slurm.boot("node2")
    assert build.end() == 0, build.error()
    assert {event["id"] for event in retried} == {id for id, host in hosts.items() if host == "node2"}
    assert {event["reason"] for event in retried} == {"its node was lost"}
    assert build.count("retried") == 2 and contents(root) == whole
    print(f"\na lost node was noticed after {took:.0f} s (SlurmdTimeout is 15 s); two leaves went on elsewhere")


def test_an_interrupt_leaves_nothing_in_the_queue(slurm: Slurm, tmp_path: Path, whole: dict[str, bytes]) -> None:
    root = many(tmp_path, 4, LONGER)
    build = Building(root, *ON_SLURM, "-j", "2")
    build.until("progress", lambda event: event["step"] > 5)
    began = time.monotonic()
    build.process.send_signal(signal.SIGINT)
    assert build.end() == 130 and "run the same command again" in build.error()
    print(f"\nCtrl-C took {time.monotonic() - began:.1f} s")
    assert build.count("interrupted") == 4
    for _ in patiently("jobs left in the queue"):
        if not queued(slurm):
            break
    attempts = root / "registry" / ".attempts"
    assert [*attempts.glob("*/checkpoint.safetensors")] and not [*attempts.glob("*.lock")]
    again = Building(root, *ON_SLURM)
    assert again.end() == 0, again.error()
    assert True in {event["resumed"] for event in again.seen if event["event"] == "started"}
    assert contents(root) == whole


def test_two_builds_at_once_train_each_leaf_once(slurm: Slurm, tmp_path: Path) -> None:
    root = many(tmp_path / "slurm", 6)
    builds = [Building(root, *ON_SLURM) for _ in range(2)]
    assert [build.end() for build in builds] == [0, 0]
    assert sum(build.count("started") for build in builds) == sum(build.count("trained") for build in builds) == 6
    assert contents(root) == contents(inline(tmp_path / "inline", 6))


@pytest.mark.parametrize("how", ["detached", "killed"])
def test_a_build_finds_again_what_an_earlier_one_left(slurm: Slurm, tmp_path: Path, whole: dict[str, bytes],
                                                      how: str) -> None:
    root = many(tmp_path, 4, LONGER)
    first = Building(root, *ON_SLURM, "-j", "2", *(["--detach"] if how == "detached" else []))
    if how == "killed":
        first.until("progress")
        first.process.kill()
    assert first.end() == (0 if how == "detached" else -signal.SIGKILL)
    assert first.count("detached") == (4 if how == "detached" else 0)
    assert len(queued(slurm)) == 4
    second = Building(root, *ON_SLURM)
    assert second.end() == 0, second.error()
    found = [event["job"] for event in second.seen if event["event"] == "started"]
    assert len(found) == len(set(found)) == 4 and all(job.startswith("slurm ") for job in found)
    assert contents(root) == whole


def is_told_to_end(process: int) -> bool:
    """Tell whether SIGTERM waits for a process that is stopped, or has ended it, as Slurm may let it go on first."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    (waiting,) = (line for line in status.splitlines() if line.startswith("ShdPnd:"))
    return bool(int(waiting.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_a_leaf_whose_time_is_over_goes_on_in_a_new_job(slurm: Slurm, tmp_path: Path,
                                                        whole: dict[str, bytes]) -> None:
    build = Building(many(tmp_path, 4, LONGER + "minutes = 60\n"), *ON_SLURM, "--retries", "0")
    id = build.until("progress", lambda event: event["step"] > 5)["id"]
    _, job = Attempt(tmp_path / "registry" / ".attempts" / id).job()
    worker = workers(tmp_path)[id]
    os.kill(worker, signal.SIGSTOP)  # or it might be ready before Slurm looks, which it does twice a minute
    slurm.ask("scontrol", "update", f"JobId={job}", "TimeLimit=1")
    for _ in patiently("no signal of Slurm's"):
        if is_told_to_end(worker):
            break
    with contextlib.suppress(ProcessLookupError):
        os.kill(worker, signal.SIGCONT)
    assert build.until("retried")["id"] == id
    assert build.end() == 0, build.error()
    assert {e["reason"] for e in build.seen if e["event"] == "retried"} <= {"exit code 143", "its time was over"}
    assert contents(tmp_path) == whole


def test_a_preempted_leaf_goes_on_when_there_is_room(slurm: Slurm, tmp_path: Path) -> None:
    root, longest = tmp_path / "slurm", LONGER.replace("150", "2000")  # Slurm takes its time to preempt
    build = Building(many(root, 2, longest + 'partition = "low"\n'), *ON_SLURM, "--retries", "2")
    build.until("progress", lambda event: event["step"] > 5)
    environment = os.environ | {"SLURM_CONF": str(slurm.conf)}
    subprocess.run(["sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 2"],
                   env=environment, check=True, capture_output=True, cwd=tmp_path)
    build.until("retried")
    assert build.end() == 0, build.error()
    reasons = {event["reason"] for event in build.seen if event["event"] == "retried"}
    assert reasons <= {"a more urgent job took its place", "exit code 143", "signal 15 (Terminated)"}
    assert contents(root) == contents(inline(tmp_path / "inline", 2, longest))


def test_a_job_that_somebody_cancels_is_not_tried_again(slurm: Slurm, tmp_path: Path) -> None:
    build = Building(many(tmp_path, 2, LONGER), *ON_SLURM)
    build.until("progress")
    jobs = slurm.ask("squeue", "--noheader", "--array", "--format=%i").split()
    slurm.ask("scancel", sorted(jobs)[0])
    assert build.end() == 1
    (failed,) = [event for event in build.seen if event["event"] == "failed"]
    assert failed["problems"] == ["error: the worker ended: its job was cancelled"]
    assert (build.count("trained"), build.count("retried")) == (1, 0)


def test_what_slurm_refuses_is_told_in_its_words(slurm: Slurm, tmp_path: Path) -> None:
    build = Building(many(tmp_path, 2, SHORT + '[resources]\npartition = "golden"\n'), *ON_SLURM)
    assert build.end() == 1
    failed = [event for event in build.seen if event["event"] == "failed"]
    assert len(failed) == 2 and all("invalid partition" in event["problems"][0] for event in failed)


def test_a_folder_that_the_nodes_do_not_see_is_told(slurm: Slurm) -> None:
    root = many(slurm.private / "project", 1)
    build = Building(root, *ON_SLURM)
    assert build.end() == 1
    (failed,) = [event for event in build.seen if event["event"] == "failed"]
    assert "does not see" in failed["problems"][0] and failed["host"] in failed["problems"][0]
    shutil.rmtree(root)


def test_fail_fast_takes_leaves_out_of_the_queue(slurm: Slurm, tmp_path: Path) -> None:
    root = many(tmp_path, 6, "[optimizer]\nlr = 1e30\n")
    build = Building(root, *ON_SLURM, "-j", "1", "--fail-fast")
    assert build.end() == 1
    assert len([*root.glob("registry/.attempts/*/log.txt")]) < 6 and not workers(root)
