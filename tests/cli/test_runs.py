"""ls, show, logs, verify, rm, gc on registries that are made by hand."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from projects import project
from registries import commit, files, manifest

from runner.cli.app import cli
from runner.plan.planner import make_plan
from runner.registry.attempt import Attempt
from runner.registry.manifest import json_with_checksum
from runner.registry.registry import WEIGHTS, Registry, Run
from runner.specs.loader import Loader


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with three finished runs, of which `sum` alone is a spec."""
    made = project(tmp_path)
    registry = Registry(made / "registry")
    history = json.dumps({"step": 8, "dev": {"overall": 0.5}, "losses": {"sentiment": 1.6}}) + "\n"
    for number, (name, size) in enumerate({"sum": 100, "mean": 5000, "mean-2": 300}.items()):
        content = {**files(number), WEIGHTS: bytes(size), "history.jsonl": history.encode()}
        registry.commit(ids(made)[name], content, manifest(name=name, dev={"overall": 0.1 * number}))
    monkeypatch.chdir(made)
    return made


def ids(root: Path) -> dict[str, str]:
    return {"sum": next(iter(make_plan(root, [root / "specs" / "sum.toml"], "demo").nodes)),
            "mean": "aaaaaaaaaaaa", "mean-2": "aabbbbbbbbbb"}


def mtrun(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=True)


def listed(*arguments: str) -> list[str]:
    return [json.loads(line)["name"] for line in mtrun("ls", "--json", *arguments).stdout.splitlines()]


def test_ls_filters_and_sorts(root: Path) -> None:
    assert listed() == ["mean", "mean-2", "sum"]
    assert listed("mean*") == ["mean", "mean-2"]
    assert listed("aab", "s?m") == ["mean-2", "sum"]
    assert listed("--sort", "size") == ["sum", "mean-2", "mean"]
    assert listed("--sort", "overall", "-r") == ["mean-2", "mean", "sum"]
    assert listed("nothing") == []
    shown = mtrun("ls")
    assert [line.split()[1] for line in shown.stdout.splitlines()] == ["name", "mean", "mean-2", "sum"]
    assert "3 runs, " in shown.stderr


def test_ls_tells_of_damage_and_of_work_in_progress(root: Path) -> None:
    registry = Registry(root / "registry")
    (registry.root / "aaaaaaaaaaaa" / "manifest.json").write_text("{}")
    attempt = registry.attempt("cccccccccccc")
    attempt.mkdir(parents=True)
    (attempt / "task.json").write_text('{"name": "slow\\u001b[2J"}')
    (attempt / "progress.json").write_text('{"step": 3, "steps": 9}')
    shown = mtrun("ls")
    assert "aaaaaaaaaaaa is damaged" in shown.stderr and len(shown.stdout.splitlines()) == 3
    assert "slow\N{REPLACEMENT CHARACTER}[2J (cccccccccccc) is stopped, step 3 of 9" in shown.stderr
    with registry.claim("cccccccccccc"):
        assert f"is in training on {os.uname().nodename}, process {os.getpid()}" in mtrun("ls").stderr


def test_show_tells_all(root: Path) -> None:
    text = mtrun("show", "sum").stdout
    assert text.startswith(f"sum  {ids(root)['sum']}") and 'train.select = "best"' in text and "sentiment 1.6" in text
    assert json.loads(mtrun("show", "aaa", "--json").stdout)["name"] == "mean"
    assert mtrun("show", "nothing").exit_code == 1 and "no run `nothing`" in str(mtrun("show", "nothing").exception)


def test_logs_of_a_finished_run_and_of_one_in_training(root: Path) -> None:
    assert mtrun("logs", "sum").stdout == "said\n"
    registry = Registry(root / "registry")
    attempt = registry.attempt("cccccccccccc")
    attempt.mkdir(parents=True)
    (attempt / "task.json").write_text('{"name": "slow"}')
    (attempt / "log.txt").write_text("one\n")
    assert mtrun("logs", "slow").stdout == "one\n"
    with registry.claim("cccccccccccc"):
        command = [sys.executable, "-c", "from runner.cli import main; main()", "logs", "-f", "slow"]
        following = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
        assert following.stdout
        assert following.stdout.readline() == "one\n"
        with (attempt / "log.txt").open("a") as log:
            log.write("two\n")
        assert following.stdout.readline() == "two\n"
    assert following.communicate(timeout=600)[0] == "" and following.returncode == 0


def test_verify_names_what_is_damaged(root: Path) -> None:
    assert mtrun("verify").exit_code == 0
    for id in ("aaaaaaaaaaaa", "aabbbbbbbbbb"):
        path = root / "registry" / id / WEIGHTS
        path.write_bytes(b"\1" + path.read_bytes()[1:])
    found = mtrun("verify")
    assert found.exit_code == 3
    assert [line.split()[0] for line in found.stdout.splitlines()] == ["aaaaaaaaaaaa", "aabbbbbbbbbb"]
    assert WEIGHTS in found.stdout and "3 runs, 2 damaged" in found.stderr
    assert mtrun("verify", "sum").exit_code == 0 and mtrun("verify", "mean").exit_code == 3
    assert mtrun("verify", "--set-aside").exit_code == 3
    assert mtrun("verify").exit_code == 0 and listed() == ["sum"]


def test_rm_removes_what_is_named(root: Path) -> None:
    (root / "results" / "demo").mkdir(parents=True)
    (root / "results" / "demo" / "mean.json").write_text('{"id": "aaaaaaaaaaaa"}')
    refused = mtrun("rm", "mean*")
    assert "published results refer to mean (aaaaaaaaaaaa)" in str(refused.exception) and len(listed()) == 3
    assert mtrun("rm", "--weights", "mean*").exit_code == 0
    assert not (root / "registry" / "aaaaaaaaaaaa" / WEIGHTS).exists() and mtrun("verify").exit_code == 0
    with Registry(root / "registry").claim(ids(root)["sum"]):
        assert "is in training" in str(mtrun("rm", "sum").exception)
    assert mtrun("rm", "sum").exit_code == 0 and mtrun("rm", "--force", "aaaaaaaaaaaa").exit_code == 0
    assert listed() == ["mean-2"]


def test_rm_leaves_the_weights_of_a_run_that_was_trained_again_meanwhile(root: Path,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    registry, drop = Registry(root / "registry"), Registry.drop_weights

    def slow(self: Registry, run: Run) -> None:
        drop(self, run)
        without = self.find(run.id)
        assert without
        commit(self, run.id, replaces=without.manifest["sha256"])  # as `build --force` does

    monkeypatch.setattr(Registry, "drop_weights", slow)
    assert mtrun("rm", "--weights", "sum").exit_code == 0
    found = registry.find(ids(root)["sum"])
    assert found and found.weights
    found.verify()


def test_gc_removes_what_nothing_refers_to(root: Path) -> None:
    registry = Registry(root / "registry")
    (root / "results" / "demo").mkdir(parents=True)
    (root / "results" / "demo" / "mean.json").write_text('{"id": "aaaaaaaaaaaa"}')
    commit(registry, "dddddddddddd")
    registry.set_aside("dddddddddddd")
    for id in ("cccccccccccc", "eeeeeeeeeeee", ids(root)["sum"]):  # live, dead, left over
        registry.attempt(id).mkdir(parents=True)
    registry.attempt("ffffffffffff").mkdir()
    Attempt(registry.attempt("ffffffffffff")).record_job("slurm", "12_3")
    (registry.attempts / "staged-0123456789ab-01234567").mkdir()
    registry.lease("0123456789ab").touch()
    before = sorted(str(p) for p in root.rglob("*"))
    with registry.claim("cccccccccccc"):
        dry = mtrun("gc", "--dry-run")
        assert sorted(str(p) for p in root.rglob("*") if p.name != "cccccccccccc.lock") == before
        done = mtrun("gc")
        assert done.exit_code == 0 and done.stdout == dry.stdout
        assert sorted(p.name for p in registry.attempts.iterdir()) == ["cccccccccccc", "cccccccccccc.lock",
                                                                      "ffffffffffff"], "an engine may be at work"
    assert registry.ids() == sorted([ids(root)["sum"], "aaaaaaaaaaaa"]), "`mean-2` is neither a spec nor published"
    assert not list((registry.root / ".damaged").iterdir())
    assert len(done.stdout.splitlines()) == 6


def test_copies_touches_and_clocks_cause_no_rebuild(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    plan = make_plan(root, [root / "specs" / "sum.toml"], "demo")
    assert [node.action for node in plan.nodes.values()] == ["reuse"]
    other = tmp_path_factory.mktemp("other") / "copy"
    subprocess.run(["cp", "-r", str(root), str(other)], check=True)
    for copy in (root, other):
        for path in copy.rglob("*"):
            with contextlib.suppress(OSError):
                os.utime(path, random.choice([(0, 0), (2**31, 2**31)]))
        plan = make_plan(copy, [copy / "specs" / "sum.toml"], "demo")
        assert [node.action for node in plan.nodes.values()] == ["reuse"]


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.long)])
def test_ls_is_quick(tmp_path: Path, count: int) -> None:
    """Processor time is asserted, with room for a busy machine; the figure is printed."""
    root = project(tmp_path)
    (node,) = Loader(root, "demo", ()).load(root / "specs" / "sum.toml")
    heads = {f"h{i}": {"type": "pair"} for i in range(40)}
    long = manifest(spec={"train": {"select": "best"}, "heads": heads})
    for number in range(count):
        folder = root / "registry" / f"{number:012x}"
        folder.mkdir(parents=True)
        values = {**long, "format": 1, "id": folder.name, "files": {}}
        (folder / "manifest.json").write_bytes(json_with_checksum(values))
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([sys.executable, "-c", "from runner.cli import main; main()", "ls"], cwd=root,
                          capture_output=True, text=True, check=True)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - started
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"\nls of {count:,} runs: {used:.2f} s of one core, {wall:.2f} s")
    assert len(done.stdout.splitlines()) == count + 1 and node.name == "sum"
    assert used < 3
