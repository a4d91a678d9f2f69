"""New projects and new parts: they work as they come, and nothing that is there is touched."""

from __future__ import annotations

import json
import keyword
import os
import re
import subprocess
import sys
from pathlib import Path
from string import Template

import pytest
from jsonschema import Draft7Validator

from runner.cli import app, scaffold
from runner.cli.schema import Schemas
from runner.errors import Place, UsageError
from runner.files import sha256
from runner.part import Part
from runner.parts.adapters import Adapter
from runner.parts.combiners import Combiner
from runner.parts.discovery import documented, family, find, names
from runner.parts.encoders import Encoder
from runner.parts.ensembles import Ensemble
from runner.parts.heads import Head
from runner.parts.losses import Loss
from runner.parts.optimizers import Optimizer
from runner.parts.regularizers import Regularizer
from runner.parts.schedules import Schedule
from runner.parts.suites import Suite
from runner.specs.loader import Loader
from runner.specs.spec import Leaf
from runner.specs.toml import read
from runner.specs.validation import PartBuilder, as_table
from runner.worker.executors import Executor

TINY = ("train.epochs=1", "train.batch_size=8", "encoder.width=16", "encoder.layers=1", "encoder.attention_heads=2",
        "encoder.vocabulary=200", "suite.train=40", "suite.dev=20", "suite.test=20")
FAMILIES: dict[str, type[Part]] = {
    "head": Head, "loss": Loss, "combiner": Combiner, "optimizer": Optimizer, "schedule": Schedule,
    "regularizer": Regularizer, "encoder": Encoder, "adapter": Adapter, "ensemble": Ensemble, "suite": Suite,
    "executor": Executor,
}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a project and go there."""
    scaffold.init(tmp_path / "p", Schemas().files())
    monkeypatch.chdir(tmp_path / "p")
    return tmp_path / "p"


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Make what is the least of a project."""
    (tmp_path / "specs" / "profiles").mkdir(parents=True)
    return tmp_path


def mtrun(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        app.main(arguments)
    return int(stopped.value.code or 0)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# Projects ------------------------------------------------------------------------------------------------------------


def test_a_new_project_builds_at_once(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = [word for setting in TINY for word in ("--set", setting)]
    assert mtrun("check", "specs/ensemble.toml") == 0
    assert mtrun("build", "specs/ensemble.toml", "--executor", "inline", *sets) == 0
    (built,) = (made / "results" / "demo").glob("ensemble@*.json")
    result = json.loads(built.read_bytes())
    assert [member["name"].partition("@")[0] for member in result["tree"]["members"]] == ["sum", "pcgrad"]
    assert set(result["tree"]["scores"]["dev"]) == {"sentiment", "paraphrase", "similarity", "overall"}
    capsys.readouterr()
    assert mtrun("table") == 0
    assert "ensemble" in capsys.readouterr().out


def test_its_specs_name_schemas_that_are_there_and_that_they_fit(made: Path) -> None:
    specs = sorted((made / "specs").rglob("*.toml"))
    assert len(specs) == 8
    for path in specs:
        directive, named = path.read_text().split("\n")[0].split()
        schema = json.loads((path.parent / named).read_bytes())
        assert directive == "#:schema"
        Draft7Validator(schema).validate(read(path))


def test_its_suite_for_own_data_reads_what_it_says(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MTRUN_DATA", raising=False)
    (made / "data").mkdir()
    for task, columns, rows in (("reviews", ["sentence", "label"], [["fine", "1"], ["poor", "0"]]),
                                ("questions", ["first", "second", "same"], [["a", "b", "0"]]),
                                ("likeness", ["first", "second", "score"], [["a", "b", "3.5"]])):
        lines = [["id", *columns], *([str(number), *row] for number, row in enumerate(rows))]
        for split in ("train", "dev"):
            text = "".join("\t".join(line) + "\n" for line in lines)
            (made / "data" / f"{task}-{split}.csv").write_text(text + "\n" * (split == "dev"))
    (leaf,) = Loader(made, "mine").load(made / "specs" / "sum.toml")
    assert isinstance(leaf, Leaf)
    data = leaf.model.suite.load(made)
    assert data.splits["sentiment"]["train"].first == ("fine", "poor")
    assert data.splits["similarity"]["dev"].labels is not None
    assert data.splits["similarity"]["dev"].labels.tolist() == [3.5]


def test_git_would_keep_the_pages_and_ignore_the_runs(made: Path) -> None:
    subprocess.run(["git", "init", "-q"], check=True)
    (made / "registry" / "0123456789ab").mkdir()
    (made / "registry" / "0123456789ab" / "manifest.json").write_text("{}")
    done = subprocess.run(["git", "status", "--short", "-uall"], capture_output=True, text=True, check=True)
    shown = {line[3:] for line in done.stdout.splitlines()}
    assert shown == {str(p.relative_to(made)) for p in made.rglob("*") if p.is_file()
                     and ".git" not in p.parts} - {"registry/0123456789ab/manifest.json"}


def test_nothing_is_overwritten_and_then_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "sum.toml").write_text("mine")
    (tmp_path / "README.md").symlink_to("nowhere")
    with pytest.raises(UsageError) as error:
        scaffold.init(tmp_path, {})
    assert [note.partition(" is ")[0] for note in error.value.problems[0].notes] == [
        str(tmp_path / "README.md"), str(tmp_path / "specs" / "sum.toml")]
    assert contents(tmp_path) == {"specs/sum.toml": b"mine"}


def test_a_folder_that_cannot_be_is_an_error_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "p"):
        with pytest.raises(UsageError, match="is a file"):
            scaffold.init(folder, {})


# Parts ---------------------------------------------------------------------------------------------------------------


def test_there_is_a_template_for_every_family() -> None:
    assert {kind: family(base) for kind, base in FAMILIES.items()} == scaffold.FAMILIES


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_new_part_is_found_documented_and_assembled(bare: Path, kind: str, monkeypatch: pytest.MonkeyPatch,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(bare)
    assert mtrun("new", kind, "my_own") == 0
    path = Path("parts") / scaffold.FAMILIES[kind] / "my_own.py"
    assert capsys.readouterr().out == f"{path}\n"
    base = FAMILIES[kind]
    cls = find(base, "my_own", bare)
    assert cls and cls.type == "my_own" and cls.__name__ == "MyOwn"
    assert names(base, bare) == sorted([*names(base), "my_own"])
    assert all(field.description for field in documented(cls).values())
    needed = {"loss": "mse", "lr": 0.1, "members": []}
    values = {key: needed[key] for key, field in cls.model_fields.items() if field.is_required()}
    assembly = PartBuilder(bare)
    part = assembly.part(base, as_table({"type": "my_own", **values}, Place("spec")), Place("spec"))
    if kind == "ensemble":  # it has no members here, and says so
        assert len(assembly.problems) == 1 and "`members` in the spec" in assembly.problems[0].message
    else:
        assert isinstance(part, base) and part.type == "my_own" and not assembly.problems


@pytest.fixture
def no_old_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget which modules were imported by old names in this process, which is told once."""
    for name, module in list(sys.modules.items()):
        if type(module).__name__ == "_Renamed":
            monkeypatch.delitem(sys.modules, name)


@pytest.mark.usefixtures("no_old_modules")
@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind != "adapter"])  # 0.1 had no adapters
def test_a_part_written_for_mtrun_0_1_works_and_is_told_the_new_names(bare: Path, kind: str) -> None:
    folder = scaffold.FAMILIES[kind]
    template = (Path(__file__).parents[1] / "golden" / "parts-0.1" / f"{folder}.txt").read_text()
    path = bare / "parts" / folder / f"old_{kind}.py"
    path.parent.mkdir(parents=True)
    path.write_text(Template(template).substitute({"name": f"old_{kind}", "Class": "Old"}))
    with pytest.warns(FutureWarning) as warned:
        part = find(FAMILIES[kind], f"old_{kind}", bare)
    assert part and issubclass(part, FAMILIES[kind])
    assert {one.filename for one in warned} == {str(path)}
    assert any(str(one.message).startswith(f"`runner.{folder}` is now `runner.") for one in warned)
    if kind == "encoder":  # its method imports `runner.tokens` when it is called
        (leaf,) = Loader(project := Path(__file__).parents[2], "demo").load(project / "specs" / "models" / "sum.toml")
        assert isinstance(leaf, Leaf)
        data = leaf.model.suite.load(project)
        with pytest.warns(FutureWarning, match="`runner.tokens` is now `runner.parts.encoders.bert.tokenizer`"):
            assert part().tokenizer(data, bare).get_vocab_size() > 16


def test_what_an_encoder_sets_by_an_old_name_counts(bare: Path) -> None:
    (bare / "parts" / "encoders").mkdir(parents=True)
    (bare / "parts" / "encoders" / "same.py").write_text(
        'from runner.parts.encoders.minbert import MinBert\n\n\nclass Same(MinBert):\n    type = "same"\n'
        '    passing = ("dropout", "freeze", "width")\n    tells_tokens = False\n')
    with pytest.warns(FutureWarning, match=r"`Encoder.passing` is now `Encoder.training_only`"):
        part = find(Encoder, "same", bare)
    assert part and part.training_only == ("dropout", "freeze", "width") and not part.has_token_states


@pytest.mark.usefixtures("no_old_modules")
def test_a_part_may_go_on_from_another_of_mtrun_0_1(bare: Path) -> None:
    (bare / "parts" / "heads").mkdir(parents=True)
    (bare / "parts" / "heads" / "same.py").write_text(
        'from runner.heads.linear import Linear\n\n\nclass Same(Linear):\n    type = "same"\n')
    with pytest.warns(FutureWarning, match="`runner.heads.linear` is now `runner.parts.heads.linear`"):
        assert find(Head, "same", bare)


def test_new_parts_are_as_clean_as_the_house(bare: Path) -> None:
    for kind in FAMILIES:
        scaffold.new(kind, f"a_{kind}", bare)
    root = Path(__file__).parents[2]
    for check in (["ruff", "check", "--config", str(root / "pyproject.toml"), "."],
                  ["mypy", "--strict", "--config-file", str(root / "pyproject.toml"), "--cache-dir",
                   str(root / ".mypy_cache"), *(str(p) for p in sorted(bare.glob("parts/*/*.py")))]):
        done = subprocess.run([sys.executable, "-m", *check], cwd=bare, capture_output=True, text=True,
                              env=os.environ | {"MYPYPATH": str(root)})
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", FAMILIES)
def test_no_name_makes_a_part_that_cannot_be_imported(bare: Path, kind: str) -> None:
    template = (scaffold.TEMPLATES / "parts" / f"{scaffold.FAMILIES[kind]}.txt").read_text()
    words = set(re.findall(r"\b[A-Z][a-z]+\b", template)) - {"Class"}
    assert FAMILIES[kind].__name__ in words
    possible = {word.lower() for word in words if not keyword.iskeyword(word.lower())}
    for name in sorted(possible - set(names(FAMILIES[kind]))):
        scaffold.new(kind, name, bare)
        cls = find(FAMILIES[kind], name, bare)
        assert cls and cls.type == name and cls.__name__ not in words


@pytest.mark.parametrize("name", ["", "A", "1a", "_a", "a-b", "a b", "a/b", "../a", "class", "a.py", "é", "a" * 41,
                                  "a\n"])
def test_a_bad_name_is_refused(bare: Path, name: str) -> None:
    before = contents(bare)
    with pytest.raises(UsageError, match="cannot be the name of a part"):
        scaffold.new("head", name, bare)
    assert contents(bare) == before


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_name_that_mtrun_has_is_refused(bare: Path, kind: str) -> None:
    for name in names(FAMILIES[kind]):
        with pytest.raises(UsageError, match=f"there is an? {kind} `{name}`"):
            scaffold.new(kind, name, bare)


def test_a_part_that_is_there_is_left_alone(bare: Path) -> None:
    path = scaffold.new("head", "mine", bare)
    path.write_text("changed")
    with pytest.raises(UsageError, match="nothing was written"):
        scaffold.new("head", "mine", bare)
    assert path.read_text() == "changed"


def test_outside_of_a_project_there_is_no_new_part(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not in a project"):
        scaffold.new("head", "mine", tmp_path)
    assert contents(tmp_path) == {}


OWN = '''
kind = "model"
suite = {type = "s"}
encoder = {type = "e", width = 8}
heads.sentiment = {type = "h", hidden = 8, loss = "cross_entropy"}
combiner = "c"
optimizer = {type = "o", lr = 0.1}
schedule = "d"
regularizer = "r"
'''
MIXED = '''
kind = "model"
encoder = {type = "e", width = 8}
heads.sentiment = {type = "h", loss = "cross_entropy"}
heads.paraphrase = {type = "h", loss = "bce"}
heads.similarity = {type = "h", hidden = 4, loss = {type = "l", delta = 0.5}}
combiner = {type = "c", power = 0.5}
'''
MEDIAN = '''
kind = "ensemble"
[tree]
type = "m"
members = ["mixed.toml", "sum.toml", "pcgrad.toml"]
'''


def test_leaves_and_trees_of_new_parts_train_and_their_source_is_recorded(made: Path) -> None:
    for kind, name in zip(FAMILIES, "hlcodreamsx", strict=True):
        scaffold.new(kind, name, made)
    for name, text in (("own", OWN), ("mixed", MIXED), ("median", MEDIAN)):
        (made / "specs" / f"{name}.toml").write_text(text)
    assert mtrun("build", "specs/own.toml", "--executor", "x", "--set", "train.epochs=20",
                 "--set", "train.batch_size=8") == 0
    (made / "specs" / "adapted.toml").write_text('kind = "model"\nextends = "sum.toml"\n[adapter]\ntype = "a"\n')
    sets = [word for setting in TINY for word in ("--set", setting) if "encoder" not in setting]
    assert mtrun("build", "specs/median.toml", "--executor", "inline", *sets) == 0
    assert mtrun("build", "specs/adapted.toml", "--executor", "inline", *sets) == 0
    (built,) = (made / "results" / "demo").glob("median@*.json")
    tree = json.loads(built.read_bytes())["tree"]
    assert tree["scores"]["test"]["overall"] is not None
    stored = [json.loads(path.read_bytes()) for path in made.glob("registry/*/manifest.json")]
    manifests = {manifest["name"].partition("@")[0]: manifest for manifest in stored}
    assert set(manifests) == {"own", "mixed", "sum", "pcgrad", "adapted"}
    own = {f"{path.parent.name}/{path.name}": sha256(path)[:12] for path in made.glob("parts/*/*.py")}
    for name, parts in (("own", "shcoder"), ("mixed", "hlce"), ("adapted", "a")):
        source = manifests[name]["source"]
        recorded = {file for file in source if len(Path(file).stem) == 1}
        assert recorded == {file for file in own if Path(file).stem in parts}
        assert all(source[file].partition(".")[0] == own[file] for file in recorded)
    assert manifests["own"]["dev"]["sentiment"] > 0.9  # words are good or bad: even this encoder learns that
