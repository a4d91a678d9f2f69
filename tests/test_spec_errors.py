"""The exact text that a person reads from `mtrun check` of a broken spec.

Each folder of golden/broken holds a `spec.toml`, the files that it needs, perhaps `arguments.txt`, and `expected.txt`.
They are laid over golden/project/specs. After a change that is meant, write all expected texts anew and read the
difference: `MTRUN_GOLDEN=write python -m pytest tests/test_spec_errors.py`.
"""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import pytest

from runner.cli import main

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(GOLDEN.glob("broken/*/spec.toml"))


@pytest.mark.parametrize("case", [path.parent for path in CASES], ids=lambda folder: folder.name)
def test_broken_spec(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                     capsys: pytest.CaptureFixture[str]) -> None:
    project = tmp_path / "project"
    shutil.copytree(GOLDEN / "project", project)
    for file in case.glob("*.toml"):
        shutil.copy(file, project / "specs")
    monkeypatch.chdir(project)
    arguments = shlex.split((case / "arguments.txt").read_text()) if (case / "arguments.txt").exists() else []
    specs = [a for a in arguments if a.endswith(".toml")] or ["specs/spec.toml"]
    with pytest.raises(SystemExit) as stopped:
        main(["check", *specs, *(a for a in arguments if a not in specs)])
    printed = capsys.readouterr()
    assert (stopped.value.code, printed.out) == (2, "")
    text = printed.err.replace(str(tmp_path), "/home/me")
    if os.environ.get("MTRUN_GOLDEN") == "write":
        (case / "expected.txt").write_text(text)
    assert text == (case / "expected.txt").read_text()


def test_there_are_enough() -> None:
    assert len(CASES) >= 40
