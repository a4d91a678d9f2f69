"""The exact text that a person reads from `mtrun check` of a broken spec.

Each folder of golden/broken holds a `spec.toml`, the files that it needs, perhaps `arguments.txt`, and `expected.txt`.
They are laid over golden/project/specs. After a change that is meant, write all expected texts anew and read the
difference: `MTRUN_GOLDEN=write python -m pytest tests/specs/test_spec_errors.py`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from runner.cli.app import main
from runner.errors import Place, Problem, SpecError, did_you_mean, near

GOLDEN = Path(__file__).parents[1] / "golden"
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
    specs = [a for a in arguments if a.endswith(".toml") and "=" not in a] or ["specs/spec.toml"]
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


def test_the_caret_stands_under_wide_and_combined_letters() -> None:
    line = 'a = "日本", e\N{COMBINING ACUTE ACCENT}, \tb'
    shown, under = Problem("no", Place("f", 1, line.index("b") + 1, 1, line)).render().split("\n")[-2:]
    assert shown == f"1 | {line}".replace("\t", " ")
    assert under.index("^") == len("1 | ") + len('a = "') + 4 + len('", e, ') + 1  # 日 and 本 take two columns each


def test_suggestions_name_those_that_are_equally_near() -> None:
    assert did_you_mean("epocs", ["epoch", "epochs", "seed"]) == "did you mean `epochs` or `epoch`?"
    assert did_you_mean("ensemblex", [f"ensemble{i}" for i in range(1, 8)]) == (
        "did you mean `ensemble1` or `ensemble2` or `ensemble3`?")
    assert near("lrr", ["lr", "seed"]) == ["lr"] and near("SUM", ["sum"]) == ["sum"]
    assert near("dropout_prob", ["dropout", "seed"]) == ["dropout"]
    assert not near("xyz", ["sum", "mean", "pcgrad"]) and not near("", ["sum"])


def test_at_most_twenty_problems_in_the_order_of_their_places() -> None:
    problems = [Problem(f"no {line}", Place("f", line)) for line in range(25, 0, -1)]
    text = SpecError(*problems, *problems).render()
    assert re.findall(r"error: no (\d+)", text) == [str(line) for line in range(1, 21)]
    assert text.endswith("error: and 5 more problems")


def test_no_line_is_longer_than_anyone_reads() -> None:
    text = Problem("m" * 10_000, Place("f", 1, 5000, 9000, "x" * 20_000), ("n" * 10_000,), "h" * 10_000).render()
    assert max(map(len, text.split("\n"))) < 520
