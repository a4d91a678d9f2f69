"""Runs that cannot be read, which is no damage: they are told, stay where they are, and hide no others."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import faults
import pytest
from registries import ID, OTHER, commit, files, manifest
from systems import build, mtrun

from runner.errors import MtrunError, RegistryError, StorageError
from runner.plan.planner import make_plan
from runner.registry.attempt import TASK
from runner.registry.registry import MANIFEST, PREDICTIONS, WEIGHTS, Registry
from runner.tasks.predictions import Predictions

REFUSALS = [errno.EIO, errno.EACCES, errno.ESTALE, errno.ELOOP, errno.EMFILE]
FILES = [MANIFEST, PREDICTIONS, WEIGHTS, "epochs.safetensors", "history.jsonl", "log.txt"]


def refuse(path: Path) -> None:
    """Have a file refuse to be read, by root too."""
    path.unlink()
    path.symlink_to(path.name)


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    """A copy of a trained project."""
    shutil.copytree(trained, tmp_path / "copy")
    return tmp_path / "copy"


def ids(root: Path) -> dict[str, str]:
    """Return the ids of the project's leaves."""
    plan = make_plan(root, [root / "specs" / "mean.toml"], "demo")
    return {node.name: node.id for node in plan.nodes.values() if not node.members}


# The registry --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", REFUSALS, ids=errno.errorcode.get)
@pytest.mark.parametrize("work", ["find", "find_by_manifest", "check", "read", "commit"])
def test_whatever_the_machine_refuses_is_no_damage(tmp_path: Path, number: int, work: str) -> None:
    """The error comes at each file operation in turn; a commit onto the run meets it, too."""
    registry = Registry(tmp_path / "registry")
    commit(registry)
    run = registry.find(ID)
    assert run
    works: dict[str, Callable[[], object]] = {
        "find": lambda: registry.find(ID), "find_by_manifest": lambda: registry.find_by_manifest(ID),
        "check": lambda: registry.check(ID),
        "read": lambda: [run.read(name) for name in run.manifest["files"]], "commit": lambda: commit(registry, seed=5)}

    def told() -> str:
        try:
            works[work]()
        except MtrunError as error:
            return f"{type(error).__name__}: {error}"
        return ""

    total = len(faults.run(told, faults.Operations(registry.root / ID)).seen)
    said = [faults.run(told, faults.Operations(registry.root / ID, at, number)).value for at in range(1, total + 1)]
    assert total >= (6 if work == "commit" else 1) and all(one.startswith("StorageError") for one in said if one), said
    assert any(os.strerror(number) in one for one in said)
    assert registry.ids() == [ID] and not (registry.root / ".damaged").exists()
    sound = registry.check(ID)
    assert sound and sound.read(WEIGHTS) == files()[WEIGHTS]


@pytest.mark.parametrize("name", [MANIFEST, PREDICTIONS, WEIGHTS])
def test_a_file_that_loops_is_no_damage_and_one_that_is_none_is(tmp_path: Path, name: str) -> None:
    registry = Registry(tmp_path / "registry")
    path = commit(registry).folder / name
    refuse(path)
    for look in (registry.find, registry.check):
        with pytest.raises(StorageError, match=r"cannot read .*Too many levels"):
            look(ID)
    path.unlink()
    for put in (path.mkdir, lambda: (path.rmdir(), os.mkfifo(path)), path.unlink):
        put()
        with pytest.raises(RegistryError, match="damaged"):
            registry.check(ID)


def test_a_damaged_file_beside_an_unreadable_one_is_damage(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    run = commit(registry)
    (run.folder / WEIGHTS).write_bytes(bytes(3000))
    refuse(run.folder / PREDICTIONS)
    with pytest.raises(RegistryError) as caught:
        run.verify()
    assert len(caught.value.problems) == 2


def test_a_run_that_goes_or_comes_while_it_is_read_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                                ) -> None:
    registry = Registry(tmp_path / "registry")
    for read in (registry.check, registry.find):
        run = commit(registry)
        monkeypatch.setattr(Registry, "find_by_manifest", lambda self, id, run=run: (registry.drop(id), run)[1])
        assert read(ID) is None
        monkeypatch.undo()
    lexists = os.path.lexists
    monkeypatch.setattr(os.path, "lexists", lambda path: lexists(path) or bool(commit(registry)))
    assert registry.find_by_manifest(ID), "it came between two looks"


# Commands ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_verify_leaves_what_it_cannot_read_and_goes_on(root: Path, name: str) -> None:
    found = ids(root)
    refuse(root / "registry" / found["sum"] / name)
    done = mtrun(root, "verify", "--set-aside")
    assert done.code == 1 and "2 runs, 0 damaged, 1 that cannot be read" in done.err
    assert [line.split()[0] for line in done.out.splitlines()] == [found["sum"]] and "cannot read" in done.out
    assert mtrun(root, "verify", "pcgrad").code == 0
    (root / "registry" / found["pcgrad"] / WEIGHTS).write_bytes(b"x")
    done = mtrun(root, "verify", found["sum"], found["pcgrad"], "--set-aside")
    assert done.code == 3 and "2 runs, 1 damaged, 1 that cannot be read" in done.err
    assert Registry(root / "registry").ids() == [found["sum"]]


@pytest.mark.parametrize("name", FILES)
def test_one_run_that_cannot_be_read_hides_no_others(root: Path, name: str) -> None:
    found = ids(root)
    registry = Registry(root / "registry")
    commit(registry, OTHER)
    commit(registry, ID)
    refuse(registry.root / found["sum"] / name)
    refuse(registry.root / ID / MANIFEST)
    listed = mtrun(root, "ls")
    assert listed.code == 0 and "pcgrad" in listed.out and f"cannot read {registry.root / ID}" in listed.err
    for command in (("show", "pcgrad"), ("logs", "pcgrad"), ("diff", "pcgrad", found["pcgrad"])):
        assert mtrun(root, *command).code == 0, command
    assert mtrun(root, "show", ID).code == 1
    gc = mtrun(root, "gc")
    assert gc.code == 0 and OTHER in gc.out and f"cannot read {registry.root / ID / MANIFEST}" in gc.err
    assert registry.ids() == sorted([*found.values(), ID])


@pytest.mark.parametrize("name", [MANIFEST, PREDICTIONS])
def test_a_build_makes_nothing_in_the_place_of_a_run_that_it_cannot_read(root: Path, name: str) -> None:
    found = ids(root)
    path = root / "registry" / found["sum"] / name
    content = path.read_bytes()
    refuse(path)
    plan = mtrun(root, "plan", "specs/mean.toml")
    assert plan.code == 0 and "the run is left as it is" in plan.err and "to train" not in plan.out
    done = mtrun(root, "build", "specs/mean.toml", "specs/pcgrad.toml", "--executor", "inline")
    assert done.code == 1 and "sum: failed" in done.err and "cannot read" in done.err, done.err
    assert "pcgrad: dev" in done.err and "mean: not built, since sum failed" in done.err
    assert mtrun(root, "predict", "specs/mean.toml", "A film.").code == 1
    path.unlink()
    path.write_bytes(content)
    assert mtrun(root, "verify").code == 0 and not (root / "registry" / ".damaged").exists()
    assert mtrun(root, "build", "specs/mean.toml").code == 0


def test_a_run_that_cannot_be_read_when_its_worker_ends_stops_no_other_leaf(root: Path,
                                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    predictions, bad = Predictions.from_bytes, list[str]()

    def read(data: bytes, shown_as: str) -> Predictions:
        if not bad or any(id in shown_as for id in bad):
            bad.append(Path(shown_as).parent.name)
            raise StorageError(f"cannot read {shown_as}")
        return predictions(data, shown_as)

    monkeypatch.setattr(Predictions, "from_bytes", read)
    events = build(root, "mean", settings=["train.seed=8"])
    assert sorted(event.event for event in events if event.event in ("trained", "failed", "blocked")) == [
        "blocked", "failed", "trained"]
    assert not (root / "registry" / ".damaged").exists() and len(Registry(root / "registry").ids()) == 4


def test_an_import_onto_a_run_that_cannot_be_read_does_nothing(root: Path, tmp_path: Path) -> None:
    assert mtrun(root, "export", "specs/mean.toml", "-o", "../b.zip").code == 0
    assert mtrun(tmp_path, "import", "b.zip", "new").code == 0
    last = max(ids(root).values())
    new = tmp_path / "new"
    refuse(new / "registry" / last / MANIFEST)
    for path in [*(new / "specs").glob("*.toml"), *(new / "registry").glob("[0-9a-f]*")]:
        if path.name != last:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    done = mtrun(tmp_path, "import", "b.zip", "new")
    assert done.code == 1 and f"cannot read {new / 'registry' / last}" in done.err
    assert Registry(new / "registry").ids() == [last] and not list((new / "specs").glob("*.toml"))
    (new / "registry" / last / MANIFEST).unlink()
    assert mtrun(tmp_path, "import", "b.zip", "new").code == 0, "a damaged one gives way"
    assert mtrun(new, "verify").code == 0


def test_gc_leaves_work_that_it_cannot_read_and_says_what_it_cannot_remove(root: Path,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(root / "registry")
    (registry.attempts / ID).mkdir(parents=True)
    (registry.attempts / ID / TASK).touch()
    refuse(registry.attempts / ID / TASK)
    for id in ("aaaaaaaaaaaa", "bbbbbbbbbbbb"):
        registry.commit(id, files(), manifest())
    discard = Registry.discard

    def refused(self: Registry, path: Path, id: str) -> Path:
        if id == "aaaaaaaaaaaa":
            raise StorageError(f"cannot remove {path}: Permission denied")
        return discard(self, path, id)

    monkeypatch.setattr(Registry, "discard", refused)
    done = mtrun(root, "gc")
    assert done.code == 1 and "bbbbbbbbbbbb" in done.out and "aaaaaaaaaaaa" not in done.out
    assert "error: cannot remove" in done.err and f"cannot read {registry.attempts / ID / TASK}" in done.err
    done = mtrun(root, "rm", "aaaaaaaaaaaa", "pcgrad", "--force")
    assert done.code == 2 and "pcgrad" in done.out and "cannot remove" in done.err
    assert (registry.attempts / ID).exists() and registry.has("aaaaaaaaaaaa")


def test_ls_beside_somebody_else_s_work(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listdir = os.listdir

    def refused(path: str | Path) -> list[str]:
        if str(path).endswith(".attempts"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listdir(path)

    (root / "registry" / ".attempts").mkdir(exist_ok=True)
    monkeypatch.setattr(os, "listdir", refused)
    done = mtrun(root, "ls")
    assert done.code == 0 and "pcgrad" in done.out and "Permission denied" in done.err
