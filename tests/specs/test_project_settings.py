"""The profile of commands that name none: the environment, the project's mtrun.toml, demo; and errors in that file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from projects import PROFILE, project, write

import runner
from runner.cli import app
from runner.errors import SpecError
from runner.plan.planner import make_plan
from runner.specs.loader import Loader

MINE, OTHER = ({f"specs/profiles/{name}.toml": PROFILE.replace("epochs = 2", f"epochs = {epochs}")}
               for name, epochs in (("mine", 3), ("other", 4)))


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a project with three profiles, which differ in epochs, and go elsewhere."""
    monkeypatch.delenv("MTRUN_PROFILE", raising=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    root = project(tmp_path / "p")
    write(root, MINE | OTHER)
    return root


def settings(root: Path, text: str) -> None:
    (root / "mtrun.toml").write_text(text)


def mtrun(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        app.main(arguments)
    return int(stopped.value.code or 0)


def planned(capsys: pytest.CaptureFixture[str], root: Path, *options: str) -> str:
    """Return the profile of a plan on the command line."""
    capsys.readouterr()
    assert mtrun("plan", str(root / "specs" / "sum.toml"), "--json", *options) == 0
    return str(json.loads(capsys.readouterr().out.splitlines()[-1])["profile"])


def test_the_nearest_name_counts(made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
                                 ) -> None:
    assert planned(capsys, made) == "demo"
    settings(made, "")
    assert planned(capsys, made) == "demo"
    settings(made, 'profile = "mine"\n')
    assert planned(capsys, made) == "mine"
    monkeypatch.setenv("MTRUN_PROFILE", "other")
    assert planned(capsys, made) == "other"
    assert planned(capsys, made, "--profile", "demo") == "demo"
    monkeypatch.setenv("MTRUN_PROFILE", "")
    assert planned(capsys, made) == "mine"


def test_python_follows_the_same_rule(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings(made, 'profile = "mine"\n')
    spec = made / "specs" / "sum.toml"
    ids = {name: make_plan(made, [spec], name).roots["sum"] for name in ("demo", "mine", "other")}
    assert len({*ids.values()}) == 3
    plan = runner.load(spec).plan()
    assert plan.profile == "mine" and plan.roots["sum"] == ids["mine"] == make_plan(made, [spec]).roots["sum"]
    assert runner.load(spec, "other").plan().roots["sum"] == ids["other"]
    monkeypatch.setenv("MTRUN_PROFILE", "demo")
    assert runner.load(spec).plan().roots["sum"] == ids["demo"]


def test_results_predictions_and_submissions_are_those_of_the_profile(made: Path, capsys: pytest.CaptureFixture[str]
                                                                      ) -> None:
    settings(made, 'profile = "mine"\n')
    write(made, {"specs/profiles/mine.toml": PROFILE.replace("epochs = 2", "epochs = 1")})
    spec = str(made / "specs" / "sum.toml")
    assert mtrun("build", spec, "--executor", "inline") == 0
    assert [path.name for path in (made / "results").iterdir() if path.is_dir()] == ["mine"]
    assert mtrun("check", spec) == mtrun("predict", spec, "a day") == mtrun("submit", spec) == mtrun("data", spec) == 0
    assert (made / "submissions" / "mine" / "sum").is_dir()
    assert mtrun("predict", spec, "a day", "--profile", "demo") != 0, "it is not built"
    capsys.readouterr()
    write(made, {"results/demo/none.txt": ""})
    assert mtrun("table", str(made / "results")) == 0
    assert "sum" in capsys.readouterr().out


@pytest.mark.parametrize(("text", "line", "message", "hint"), [
    ('\nprofil = "mine"\n', 2, "unknown key `profil` in mtrun.toml", "did you mean `profile`?"),
    ("profile = 3\n", 1, "`profile` must be the name of a profile, in quotes", ""),
    ('profile = ""\n', 1, "`profile` must be the name of a profile, in quotes", ""),
    ('# ours\nprofile = "mien"\n', 2, "unknown profile `mien`", "did you mean `mine`?"),
    ("profile = mine\n", 1, "not valid TOML", ""),
])
def test_an_error_has_the_line_of_the_file(made: Path, text: str, line: int, message: str, hint: str) -> None:
    settings(made, text)
    with pytest.raises(SpecError) as raised:
        Loader(made).load(made / "specs" / "sum.toml")
    (problem,) = raised.value.problems
    assert problem.message.startswith(message) and problem.place
    assert (problem.place.file, problem.place.line) == (str(made / "mtrun.toml"), line)
    assert not hint or problem.hint == hint
    assert Loader(made, "mine").load(made / "specs" / "sum.toml"), "a command that names its profile does not read it"


def test_an_unknown_profile_of_the_environment_is_shown_as_such(made: Path, monkeypatch: pytest.MonkeyPatch,
                                                                capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MTRUN_PROFILE", "mien")
    assert mtrun("plan", str(made / "specs" / "sum.toml")) == 2
    lines = capsys.readouterr().err.splitlines()
    at = next(number for number, text in enumerate(lines) if "| MTRUN_PROFILE=mien" in text)
    assert lines[at + 1].index("^") == lines[at].index("mien") and lines[-1] == "hint: did you mean `mine`?"
