"""Two finished runs side by side, and the ways to name a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from projects import project
from runs import DEV, finish

from runner.cli.app import main
from runner.cli.views.diff import compare, find_run, json_line, text
from runner.errors import RegistryError, UsageError
from runner.registry.registry import Registry, Run

FAST = 'kind = "model"\nextends = "sum.toml"\n[optimizer]\nlr_scale = 2.0\n[train]\ntasks = ["sentiment"]\n'
ENVIRONMENT = {"mtrun": "0.1.0", "python": "3.11.7", "torch": "2.12.0", "device": "Some GPU", "threads": 1}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    root = project(tmp_path, fast=FAST)
    monkeypatch.chdir(root)
    old = finish(root, "sum", source={"heads/pair.py": "aaaaaaaaaaaa", "heads/cosine.py": "cccccccccccc"})
    new = finish(root, "fast", source={"heads/pair.py": "bbbbbbbbbbbb"},
                 seconds=1234.5, environment=ENVIRONMENT, dev=DEV | {"overall": None, "sentiment": 0.45})
    return [old, new, finish(root, "sum", ["train.seed=2"], name="sum")]


@pytest.fixture
def registry(runs: list[Run]) -> Registry:
    return Registry(runs[0].folder.parent)


GOLDEN = '''\
sum {0} -> fast {1}

  optimizer.lr_scale: 1.0 -> 2.0
  train.tasks: unset -> ["sentiment"]

not in the id:
  environment device: "cpu (x86_64)" -> "Some GPU"
  environment torch: "2.13.0" -> "2.12.0"
  source heads/pair.py: "aaaaaaaaaaaa" -> "bbbbbbbbbbbb"

                  {0}    {1}    change
--------------  --------------  --------------  --------
paraphrase dev           0.600           0.600    +0.000
sentiment dev            0.400           0.450    +0.050
similarity dev           0.000           0.000    +0.000
overall dev              0.500               —
epoch                        2               2        +0
parameters              12,345          12,345        +0
seconds                   20.0         1,234.5  +1,214.5'''


def test_the_text_of_a_comparison(runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    old, new, _ = runs
    environment = {**old.manifest["environment"], "device": "cpu (x86_64)"}
    old = Run(old.id, old.folder, {**old.manifest, "environment": environment})
    assert text(compare(old, new)) == GOLDEN.format(old.id, new.id)


def test_json_says_all_of_it(runs: list[Run]) -> None:
    said = json.loads(json_line(compare(runs[0], runs[1])))
    assert said["old"] == {
        "id": runs[0].id, "name": "sum", "dev": DEV, "epoch": 2, "parameters": 12345, "seconds": 20.0}
    assert said["new"]["dev"]["overall"] is None
    assert [(one["key"], one["old"], one["new"]) for one in said["differences"]] == [
        ("optimizer.lr_scale", 1.0, 2.0), ("train.tasks", None, ["sentiment"])]
    assert [one["key"] for one in said["making"]] == ["environment device", "environment torch", "source heads/pair.py"]


def test_a_run_does_not_differ_from_itself(runs: list[Run]) -> None:
    same = compare(runs[0], runs[0])
    assert (same.fields, same.making) == ((), ())
    assert "no field differs" in text(same)


def test_a_run_is_named_by_id_beginning_or_name(runs: list[Run], registry: Registry) -> None:
    assert find_run(registry, "fast").id == runs[1].id
    for run in runs:
        assert find_run(registry, run.id).id == run.id
        beginnings = (run.id[:n] for n in range(1, 13))
        only = next(start for start in beginnings if sum(other.id.startswith(start) for other in runs) == 1)
        assert find_run(registry, only).id == run.id


@pytest.mark.parametrize(("word", "said"), [
    ("fsat", "no run `fsat`. did you mean `fast`?"), ("", "no run ``. mtrun ls lists the runs"),
    ("../registry", "no run `../registry`. mtrun ls lists the runs"), ("sum", "`sum` can be any of 2 runs: ")])
def test_an_unknown_run_is_an_error_that_helps(registry: Registry, word: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        find_run(registry, word)
    assert error.value.render().startswith(f"error: {said}")


def test_a_mistyped_id_gets_the_nearest(runs: list[Run], registry: Registry) -> None:
    id = runs[1].id
    with pytest.raises(UsageError, match=f"did you mean `{id}`"):
        find_run(registry, id[:-1] + ("0" if id[-1] != "0" else "1"))


def test_damaged_runs_do_not_disturb_others(runs: list[Run], registry: Registry) -> None:
    (runs[2].folder / "manifest.json").write_text("{")
    assert find_run(registry, "sum").id == runs[0].id
    with pytest.raises(RegistryError):
        find_run(registry, runs[2].id)


def test_the_command_prints_and_ends_well(runs: list[Run], capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, code in ((["fast", runs[0].id, "--json"], 0), (["fast", "nothing"], 2)):
        with pytest.raises(SystemExit) as ended:
            main(["diff", *arguments])
        assert ended.value.code == code
    said = capsys.readouterr()
    assert json.loads(said.out)["old"]["name"] == "fast"
    assert "no run `nothing`" in said.err
