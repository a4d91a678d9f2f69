"""The schemas: current, correct by an independent validator, and of one mind with mtrun about what a spec may say."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from projects import project, write
from pydantic._internal._docs_extraction import extract_docstrings_from_cls

from runner.cli import app
from runner.cli.schema import FOLDER, Schemas
from runner.errors import MtrunError
from runner.part import Part
from runner.parts.combiners import Combiner
from runner.parts.discovery import documented, family, find, names
from runner.parts.encoders import Encoder
from runner.parts.ensembles import Ensemble
from runner.parts.heads import Head
from runner.parts.losses import Loss
from runner.parts.optimizers import Optimizer
from runner.parts.schedules import Schedule
from runner.parts.suites import Suite
from runner.specs.loader import Loader

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "specs").rglob("*.toml"))
SCHEMAS = {kind: json.loads((ROOT / FOLDER / f"{kind}.json").read_bytes())
           for kind in ("model", "ensemble", "soup", "suite", "profile")}
VALIDATORS = {kind: Draft7Validator(schema) for kind, schema in SCHEMAS.items()}
FREE = {"heads", "unlabelled", "routes", "tasks", "sweep"}
"""Tables whose keys the user chooses."""


def kind_of(spec: dict[str, Any]) -> str:
    return str(spec.get("kind", "profile"))


def table(text: str) -> dict[str, Any]:
    return tomllib.loads(text)


def inside(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every key below a value."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from inside(item, (*path, key))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


# The files -----------------------------------------------------------------------------------------------------------


def test_the_schemas_on_disk_are_those_of_the_code() -> None:
    for path, data in Schemas(ROOT).files().items():
        assert (ROOT / path).read_bytes() == data, f"{path} is out of date: run `mtrun schema --write`"


@pytest.mark.parametrize("kind", SCHEMAS)
def test_a_schema_is_one_of_draft_7_with_everything_in_its_place(kind: str) -> None:
    Draft7Validator.check_schema(SCHEMAS[kind])
    assert SCHEMAS[kind]["$schema"] == "http://json-schema.org/draft-07/schema#"
    keys = {key for path in inside(SCHEMAS[kind]) for key in path}
    assert not keys & {"$ref", "$defs", "definitions", "prefixItems"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_shipped_spec_names_its_schema_and_fits_it(path: Path) -> None:
    spec = table(path.read_text())
    directive, _, named = path.read_text().split("\n")[0].partition(" ")
    assert directive == "#:schema"
    assert os.path.normpath(path.parent / named) == str(ROOT / FOLDER / f"{kind_of(spec)}.json")
    assert [error.message for error in VALIDATORS[kind_of(spec)].iter_errors(spec)] == []


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_misspelt_key_does_not_fit(path: Path) -> None:
    spec = table(path.read_text())
    for where in inside(spec):
        *above, key = where
        if isinstance(key, int) or (above and above[-1] in FREE) or {"sweep", "weights", "task_weights"} & set(above):
            continue
        wrong = copy.deepcopy(spec)
        holder = at(wrong, tuple(above))
        holder[f"{key}x"] = holder.pop(key)
        assert not VALIDATORS[kind_of(spec)].is_valid(wrong), f"{where} may be misspelt"


@pytest.mark.skipif(not shutil.which("taplo"), reason="needs the program taplo (`pip install taplo`)")
def test_taplo_takes_the_shipped_specs_and_refuses_a_typo(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "specs", tmp_path / "specs")
    lint = ["taplo", "lint", "specs/**/*.toml"]
    done = subprocess.run(lint, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    spec = tmp_path / "specs" / "models" / "mean-dropout.toml"
    spec.write_text(spec.read_text().replace("dropout =", "drpout ="))
    done = subprocess.run(lint, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "drpout" in done.stderr


# The parts -----------------------------------------------------------------------------------------------------------

FAMILIES = (Suite, Encoder, Head, Loss, Combiner, Optimizer, Schedule, Ensemble)


def families_in(schema: Any) -> dict[str, list[Any]]:
    """Return the alternatives of every family in a schema, by the family's name."""
    found: dict[str, list[Any]] = {}
    for path in inside(schema):
        if path[-1] == "title" and path[-2] != "properties":
            found.setdefault(at(schema, path), []).append(at(schema, path[:-1])["anyOf"])
    return found


FOUND = families_in(SCHEMAS["model"]) | families_in(SCHEMAS["ensemble"])


@pytest.mark.parametrize("base", FAMILIES, ids=lambda base: base.__name__)
def test_every_part_is_an_alternative_with_all_its_options(base: type[Part]) -> None:
    for alternatives in FOUND[family(base)]:
        tables = {one["properties"]["type"]["const"]: one for one in alternatives if "properties" in one}
        assert sorted(tables) == names(base)
        for name, one in tables.items():
            cls = find(base, name)
            assert cls and cls.__doc__
            assert " ".join(cls.__doc__.split()) in " ".join(one["description"].split())
            assert one["additionalProperties"] is False
            assert set(one["properties"]) == {"type", *cls.model_fields}
            for key, field in documented(cls).items():
                shown = one["properties"][key]
                assert shown.get("description") == field.description
                if not field.is_required() and field.default is not None:
                    default = json.loads(json.dumps(field.default))
                    assert shown["default"] == default


def test_a_part_of_the_project_is_an_alternative_too(tmp_path: Path) -> None:
    root = project(tmp_path)
    write(root, {"parts/schedules/stairs.py": (
        "from runner.parts import Schedule\n\n\nclass Stairs(Schedule):\n    '''Falls in steps.'''\n\n"
        "    type = 'stairs'\n    rate: float = 0.5\n    '''Factor of a step.'''\n\n"
        "    def factor(self, step: int, steps: int) -> float:\n        return self.rate\n")})
    (alternatives,) = families_in(Schemas(root).by_kind()["model"])["schedules"]
    stairs = next(one for one in alternatives if one.get("properties", {}).get("type", {}).get("const") == "stairs")
    assert stairs["properties"]["rate"] == {"type": "number", "description": "Factor of a step.", "default": 0.5}
    assert "stairs" not in json.dumps(Schemas().by_kind())


# What mtrun takes fits, and the other way round ----------------------------------------------------------------------

MODELS = [
    'kind = "model"\nextends = "sum.toml"',
    'kind = "model"\nextends = "sum.toml"\nname = "a"\ndescription = "b"\ncombiner = "pcgrad"\nschedule = "linear"',
    'kind = "model"\nextends = "sum.toml"\n[heads.similarity]\ntype = "cosine"\nscale = 2\nloss = {type = "mse"}',
    'kind = "model"\nextends = "sum.toml"\n[heads.similarity]\ntype = "cosine"\n'
    'loss = {type = "cosine_embedding", margin = 0.5}',
    'kind = "model"\nextends = "sum.toml"\n[encoder]\ndropout = 0.4\nfreeze = true',
    'kind = "model"\nextends = "sum.toml"\n[optimizer]\nbetas = [0.8, 0.9]',
    'kind = "model"\nextends = "sum.toml"\n[suite]\ntrain = 20',
    'kind = "model"\nextends = "sum.toml"\nsuite = {type = "demo", train = 20, dev = 10, test = 10}',
    'kind = "model"\nextends = "sum.toml"\n[sweep]\n"optimizer.lr_scale" = [1, 2.0]\ntrain.seed = [1, 2]',
    'kind = "model"\nextends = "sum.toml"\n[sweep]\nlimit = 20\n[sweep.points.a]\ncombiner = "mean"\n"train.seed" = 3',
    'kind = "model"\nextends = "sum.toml"\n[sweep]\ncombiner = ["mean", {type = "pcgrad"}]',
    'kind = "model"\nextends = "sum.toml"\n[train]\ntasks = ["similarity"]\nsteps = 3\n[resources]\ndevice = "cpu"',
    'kind = "model"\nextends = "sum.toml"\n[heads.paraphrase]\nfeatures = ["u*v"]',
]
WRONG_MODELS = [
    'kind = "model"\nextends = "sum.toml"\ncombiner = "pcgrd"',
    'kind = "model"\nextends = "sum.toml"\nsuit = "suites/tiny.toml"',
    'kind = "model"\nextends = 3',
    'kind = "model"\nextends = "sum.toml"\n[combiner]\ntype = "sum"\npower = 2',
    'kind = "model"\nextends = "sum.toml"\n[heads.similarity]\ntype = "cosine"\nscale = 0\nloss = "mse"',
    'kind = "model"\nextends = "sum.toml"\n[heads.similarity]\ntype = "cosine"\nfeatures = ["u"]\nloss = "mse"',
    'kind = "model"\nextends = "sum.toml"\n[train]\nepochs = "3"',
    'kind = "model"\nextends = "sum.toml"\n[train]\nselect = "first"',
    'kind = "model"\nextends = "sum.toml"\n[optimizer]\nbetas = [0.8]',
    'kind = "model"\nextends = "sum.toml"\n[optimizer]\nlr = true',
    'kind = "model"\nextends = "sum.toml"\nsweep = 3',
    'kind = "model"\nextends = "sum.toml"\n[sweep]\n"train.seed" = []',
    'kind = "model"\nextends = "sum.toml"\n[sweep]\n"train.seed" = 3',
    'kind = "model"\nextends = "sum.toml"\n[sweep]\nlimit = 0\n"train.seed" = [3]',
    'kind = "model"\nextends = "sum.toml"\n[sweep.points]\na = 3',
    'kind = "model"\nextends = "sum.toml"\n[encoder]\nname = "x"',
    'kind = "model"\nextends = "sum.toml"\n[tree]\ntype = "average"',
]
TREES = [
    '[tree]\ntype = "average"\nmembers = ["sum.toml"]',
    '[tree]\ntype = "best"\nby = "sentiment"\ncount = 1\n'
    'members = ["sum.toml", {type = "average", members = ["sum.toml"]}]',
    'name = "t"\n[tree]\ntype = "route"\n[tree.routes]\nsentiment = "sum.toml"\nsimilarity = {type = "average", '
    'members = [{type = "average", members = [{type = "best", members = ["sum.toml"]}]}]}',
]
WRONG_TREES = [
    '[tree]\ntype = "averge"\nmembers = ["sum.toml"]',
    '[tree]\ntype = "average"\nmembers = []',
    '[tree]\ntype = "average"\nmembers = [3]',
    '[tree]\ntype = "average"\nmembers = [{type = "average"}]',
    '[tree]\ntype = "average"\nmembers = [{members = ["sum.toml"]}]',
    '[tree]\ntype = "average"\nmembers = [{type = "average", members = [{members = ["sum.toml"]}]}]',
    '[tree]\ntype = "average"\nby = "sentiment"\nmembers = ["sum.toml"]',
    'suite = "x"\n[tree]\ntype = "average"\nmembers = ["sum.toml"]',
    'tree = "average"',
]


def taken(root: Path, text: str) -> bool:
    """Tell whether mtrun takes a spec."""
    (root / "specs" / "own.toml").write_text(text)
    try:
        return bool(Loader(root).load(root / "specs" / "own.toml"))
    except MtrunError:
        return False


@pytest.mark.parametrize(("texts", "good"), [
    (MODELS, True), (WRONG_MODELS, False),
    (['kind = "ensemble"\n' + text for text in TREES], True),
    (['kind = "ensemble"\n' + text for text in WRONG_TREES], False),
])
def test_schema_and_mtrun_agree(tmp_path: Path, texts: list[str], good: bool) -> None:
    root = project(tmp_path)
    for text in texts:
        spec = table(text)
        assert taken(root, text) is good, text
        assert VALIDATORS[spec["kind"]].is_valid(spec) is good, text


def test_a_member_may_be_a_stored_run() -> None:
    text = 'kind = "ensemble"\ntree = {type = "average", members = ["run:0123456789ab"]}'
    assert VALIDATORS["ensemble"].is_valid(table(text))


def test_whatever_mtrun_takes_fits(tmp_path: Path) -> None:
    """Delete each key of each spec in turn: where mtrun still takes the rest, so does the schema."""
    root, fine = project(tmp_path), 0
    files = [root / "specs" / name for name in ("sum.toml", "profiles/demo.toml", "suites/tiny.toml")]
    for path in files:
        whole = table(path.read_text())
        kind = kind_of(whole)
        for where in inside(whole):
            if isinstance(where[-1], int):
                continue
            less = copy.deepcopy(whole)
            del at(less, where[:-1])[where[-1]]
            original = path.read_text()
            path.write_text(toml(less))
            if taken(root, (root / "specs" / "sum.toml").read_text()):
                fine += 1
                assert VALIDATORS[kind].is_valid(less), (path, where)
            path.write_text(original)
    assert fine > 10


def toml(spec: dict[str, Any], above: str = "") -> str:
    """Write a table as TOML."""
    plain = [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in spec.items() if not isinstance(value, dict)]
    nested = [f"[{above}{json.dumps(key)}]\n{toml(value, f'{above}{json.dumps(key)}.')}"
              for key, value in spec.items() if isinstance(value, dict)]
    return "\n".join([*plain, *nested])


# The command ---------------------------------------------------------------------------------------------------------


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        app.main(arguments)
    return int(stopped.value.code or 0)


def test_the_command_prints_one_or_writes_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(project(tmp_path))
    assert run("schema", "model") == 0
    assert json.loads(capsys.readouterr().out) == SCHEMAS["model"]
    assert not (tmp_path / FOLDER).exists()
    assert run("schema") == 2
    capsys.readouterr()
    assert run("schema", "--write") == 0
    assert sorted(capsys.readouterr().out.split()) == sorted(str(FOLDER / f"{kind}.json") for kind in SCHEMAS)
    for kind, schema in SCHEMAS.items():
        assert json.loads((tmp_path / FOLDER / f"{kind}.json").read_bytes()) == schema


@pytest.mark.parametrize("text", ["def x(:", "import nothing_of_this_name", "x = 1"])
def test_a_part_of_the_project_that_is_broken_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                       capsys: pytest.CaptureFixture[str], text: str) -> None:
    monkeypatch.chdir(project(tmp_path))
    write(tmp_path, {"parts/heads/broken.py": text})
    assert run("schema", "--write") == 2
    assert "parts/heads/broken.py" in capsys.readouterr().err
    assert not (tmp_path / FOLDER).exists()


@pytest.mark.parametrize("base", FAMILIES, ids=family)
def test_fields_are_described_as_pydantic_itself_would_have_it(base: type[Part]) -> None:
    for cls in (base, *filter(None, (find(base, name) for name in names(base)))):
        about = {key: field.description for key, field in documented(cls).items()}
        for made in cls.__mro__:
            if issubclass(made, Part):
                assert extract_docstrings_from_cls(made).items() <= about.items()
        assert all(about.values()), about
