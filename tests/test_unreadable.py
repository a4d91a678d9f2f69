"""Runs that the machine does not let us read: they may be sound, stay where they are, and hide no other run.

A link to itself stands for another user's file: it cannot be opened by root either.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from projects import project
from runs import planned
from systems import SPECS, build, mtrun

from runner.errors import StorageError
from runner.registry import MANIFEST, PREDICTIONS, Registry, Run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a project with two runs and their average."""
    build(project(tmp_path, **SPECS), "mean")
    return tmp_path


def run_of(root: Path, name: str) -> Run:
    return next(run for run in Registry(root / "registry").runs() if run.manifest["name"] == name)


def locked(path: Path) -> bytes:
    """Have a file be one that cannot be opened; return what it held."""
    data = path.read_bytes()
    path.unlink()
    path.symlink_to(path.name)
    return data


def unlocked(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("name", [PREDICTIONS, MANIFEST])
def test_verify_tells_it_sets_nothing_aside_and_reads_the_others(root: Path, name: str) -> None:
    run = run_of(root, "sum")
    data = locked(run.folder / name)
    done = mtrun(root, "verify", "--set-aside")
    assert done.code == 1 and "2 runs, 0 damaged, 1 cannot be read" in done.err
    assert f"cannot read {run.folder / name}" in done.out and "damaged" not in done.out
    assert not (root / "registry" / ".damaged").exists()
    unlocked(run.folder / name, data)
    assert mtrun(root, "verify").code == 0


def test_damage_beside_it_is_found_and_set_aside(root: Path) -> None:
    unread, damaged = run_of(root, "sum"), run_of(root, "pcgrad")
    locked(unread.folder / PREDICTIONS)
    path = damaged.folder / PREDICTIONS
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    done = mtrun(root, "verify", "--set-aside")
    assert done.code == 3 and "1 damaged, 1 cannot be read" in done.err
    assert unread.folder.exists() and not damaged.folder.exists()


def test_a_build_fails_what_needs_it_and_neither_trains_nor_moves_it(root: Path) -> None:
    run = run_of(root, "sum")
    data = locked(run.folder / PREDICTIONS)
    for _ in range(2):
        with pytest.raises(StorageError, match="cannot read"):
            build(root, "mean")
        assert run.folder.exists() and not (root / "registry" / ".damaged").exists()
    unlocked(run.folder / PREDICTIONS, data)
    assert not planned(root, "mean").todo()


def test_an_error_of_the_disk_during_a_build_is_no_damage(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(run: Run) -> None:
        raise StorageError(f"cannot read {run.folder}: Input/output error")

    monkeypatch.setattr(Run, "check", refuse)
    events = build(root, "mean")
    failed = [event for event in events if event.event == "failed"]
    assert len(failed) == 2 and all("Input/output error" in event.values["problems"][0] for event in failed)
    assert not [event for event in events if event.event in ("damaged", "started", "trained")]


@pytest.mark.parametrize("command", [("ls",), ("show", "pcgrad"), ("logs", "pcgrad"), ("gc", "-n")])
def test_the_others_are_shown(root: Path, command: tuple[str, ...]) -> None:
    locked(run_of(root, "sum").folder / MANIFEST)
    done = mtrun(root, *command)
    assert done.code == 0, done.err
    if command == ("ls",):
        assert "pcgrad" in done.out and "cannot read" in done.err and "damaged" not in done.err
