"""The machine refuses: full disks, closed streams, deleted folders, other encodings; each is told in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from builds import built
from projects import project

ROOT = Path(__file__).parents[2]
CODE = "from runner.cli import main; main()"


def mtrun(folder: Path, *arguments: str, out: object = subprocess.PIPE, code: str = CODE,
          **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, stdout=out,  # type: ignore[call-overload]
                          stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT), **environment})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = project(tmp_path_factory.mktemp("p"))
    built(root, "sum", settings=["train.epochs=1"])
    return root


@pytest.mark.parametrize("arguments", [("table",), ("ls",), ("plan", "specs/sum.toml"), ("--help",)])
def test_output_onto_a_full_disk_is_an_error_and_no_bug(root: Path, arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        done = mtrun(root, *arguments, out=full)
    assert done.returncode == 1 and done.stderr == "error: cannot read or write: No space left on device\n"


def test_a_terminal_of_another_encoding_gets_other_characters(root: Path) -> None:
    done = mtrun(root, "plan", "specs/ensemble.toml", PYTHONIOENCODING="latin-1")
    assert done.returncode in (0, 2) and "bug" not in done.stderr


def test_a_working_folder_that_was_deleted_is_named(root: Path) -> None:
    code = f"import os, tempfile; f = tempfile.mkdtemp(); os.chdir(f); os.rmdir(f); {CODE}"
    done = mtrun(root, "check", str(root / "specs" / "sum.toml"), code=code)
    assert done.returncode == 2 and "the working folder was deleted" in done.stderr


def test_data_of_an_unknown_user_are_only_missing(root: Path) -> None:
    done = mtrun(root, "check", "specs/sum.toml", MTRUN_DATA="~nosuchuser/data")
    assert done.returncode == 0, "the suite has no files"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_checkout_that_can_only_be_read_has_a_table(root: Path) -> None:
    folder = root / "results" / "demo"
    folder.chmod(0o555)
    (folder / "leaderboard.md").unlink(missing_ok=True)
    try:
        done = mtrun(root, "table")
    finally:
        folder.chmod(0o755)
    assert done.returncode == 0 and "sum" in done.stdout and "cannot write" in done.stderr


def test_text_that_begins_with_a_minus_has_a_hint(root: Path) -> None:
    done = mtrun(root, "predict", "specs/sum.toml", "-1 is bad")
    assert done.returncode == 2 and "goes behind a --" in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_told_with_its_line_and_before_anything_starts(tmp_path: Path) -> None:
    root = project(tmp_path)
    spec = root / "specs" / "sum.toml"
    spec.write_text(spec.read_text() + "\n[resources]\ndevice = \"cuda\"\n")
    line = spec.read_text().splitlines().index('device = "cuda"') + 1
    for command in ("check", "plan"):
        done = mtrun(root, command, "specs/sum.toml")
        assert done.returncode == 0 and f"sum.toml:{line}" in done.stderr and "no GPU" in done.stderr
    done = mtrun(root, "build", "specs/sum.toml", "-q")
    assert done.returncode == 2 and "sees no such GPU" in done.stderr and "bug" not in done.stderr
    assert not list((root / "registry").glob(".attempts/*/log.txt"))
    done = mtrun(root, "build", "specs/sum.toml", "-q", "--executor", "inline")
    assert done.returncode == 1 and "its worker sees no GPU" in done.stderr and "bug" not in done.stderr
    assert ") is failed" in mtrun(root, "ls").stderr
