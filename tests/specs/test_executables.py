"""What a bundle would have run: told with its place, and not taken unless it is trusted."""

from __future__ import annotations

import hashlib
import json
import random
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import runs
import toml_writer
import tomli
from bundle_files import files_of, packed, resigned
from systems import mtrun

from runner.errors import SpecError
from runner.registry.manifest import json_with_checksum
from runner.registry.registry import Registry
from runner.specs.executables import executables
from runner.specs.spec import Leaf, Resources
from runner.worker.executor_choice import choose

PROFILE = "specs/profiles/demo.toml"
MORE, SWEPT = "specs/more.toml", 'kind = "model"\nextends = "sum.toml"\n'
"""A spec of no system in the bundle."""
LINE = f"sh -c 'touch owned; {'true; ' * 300}touch owned-too'"


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a tree."""
    path = tmp_path_factory.mktemp("exported") / "deep.zip"
    assert mtrun(trained, "export", "specs/deep.toml", "-o", str(path)).code == 0
    return path


def forged(path: Path, exported: Path, added: dict[str, str], settings: tuple[str, ...] = ()) -> Path:
    """Write a bundle whose files have more at their ends; of a profile it is put before its first table."""
    files = files_of(exported)
    for name, text in added.items():
        old = files.get(name, b"").decode()
        files[name] = (f"{text}\n{old}" if name == PROFILE else f"{old}\n{text}\n").encode()
    return packed(path, resigned(files, lambda record: record.update(settings=list(settings))))


def every(root: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


# Command line --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "text", "told"), [
    (PROFILE, f"executor = {{ type = 'command', hosts = ['x'], template = {json.dumps(LINE)} }}",
     [f"{PROFILE}:1: executor.type = \"command\"", f"{PROFILE}:1: executor.hosts = [\"x\"]", json.dumps(LINE)]),
    (PROFILE, 'executor.type = "command"\n"executor".template = "touch owned"',
     [f"{PROFILE}:1: executor.type", f"{PROFILE}:2: executor.template = \"touch owned\""]),
    (PROFILE, 'executor = "slurm"', [f"{PROFILE}:1: executor = \"slurm\""]),
    (PROFILE, '"exec\\u0075tor" = { type = "slurm", setup = ["touch owned"] }', ['executor.setup = ["touch owned"]']),
    (PROFILE, 'executor.type = "ray"\nexecutor.address = "10.0.0.1:1"', ['executor.address = "10.0.0.1:1"']),
    (PROFILE, 'executor.type = "mine"', ['executor.type = "mine"']),
    (PROFILE, 'executor.python = "./evil"', ['executor.python = "./evil"']),
    (PROFILE, 'extends = "../ground.toml"', ["specs/ground.toml:4: executor.template"]),
    (PROFILE, 'resources = { extra = ["--wrap=touch owned"] }', [f"{PROFILE}:1: resources.extra = [\"--wrap=touch"]),
    ("specs/sum.toml", '[resources]\npartition = "x --export=LD_PRELOAD=x"', ["resources.partition"]),
    (MORE, f'{SWEPT}[sweep]\n"resources.extra" = [["--wrap=x"]]', ["sweep.resources.extra"]),
    (MORE, f'{SWEPT}[sweep.points.a.resources]\naccount = "x"', ["sweep.points.a.resources.account"]),
    (MORE, f'{SWEPT}[sweep]\nresources = [{{ extra = ["x"] }}]', ["sweep.resources.extra"]),
])
@pytest.mark.parametrize("there", [False, True], ids=["new", "old"])
def test_what_would_be_run_is_told_and_taken_on_trust_only(exported: Path, tmp_path: Path, name: str, text: str,
                                                           told: list[str], there: bool) -> None:
    evil = forged(tmp_path / "it's evil; really.zip", exported,
                  {name: text, **({"specs/ground.toml": '\n[executor]\ntemplate = "x"'} if "ground" in text else {})})
    if there:
        (tmp_path / "a new" / "specs" / "profiles").mkdir(parents=True)
        (tmp_path / "a new" / "specs" / "mine.toml").write_text("")
    before = every(tmp_path)
    refused = mtrun(tmp_path, "import", evil.name, "a new")
    assert refused.code == 2 and every(tmp_path) == before and not refused.out
    flat = refused.err.replace("\n  = ", "").replace("\n = ", "")
    assert all(one in flat for one in told), refused.err
    command = shlex.split(refused.err.split("hint: ")[1].split("`")[1])
    assert command[:2] == ["mtrun", "import"]
    taken = mtrun(tmp_path, *command[1:])
    flat = taken.err.replace("\ntaken on trust, and run by a build: ", "")
    assert taken.code == 0 and all(one in flat for one in told) and "2 runs and" in taken.out
    again = mtrun(tmp_path, "import", evil.name, "a new")
    assert again.code == 0 and "0 runs and 0 specs are new" in again.out, "what is there already is not taken"


def test_settings_are_told_and_can_be_pasted(trained: Path, exported: Path, tmp_path: Path) -> None:
    settings = ("train.epochs=2", 'resources = { threads = 1 }')  # which change no id
    words = [word for one in settings for word in ("--set", one)]
    assert mtrun(trained, "export", "specs/deep.toml", *words, "-o", str(tmp_path / "set.zip")).code == 0
    done = mtrun(tmp_path, "import", "set.zip", "new")
    pasted = shlex.split(done.err.removeprefix("they were built with "))
    assert done.code == 0 and pasted == ["--profile", "demo", *(w for one in settings for w in ("--set", one))]
    for text in ("executor.template=touch owned", 'resources.extra=["x"]', "resources={extra=['x']}"):
        refused = mtrun(tmp_path, "import", str(forged(tmp_path / "b.zip", exported, {}, (text,))), "other")
        assert refused.code == 2 and "the settings: " in refused.err and not (tmp_path / "other").exists()


def test_what_only_sounds_like_it_is_taken(exported: Path, tmp_path: Path) -> None:
    text = '[heads.executor]\ntype = "linear"\nextra = "x"\n[resources]\nthreads = 2\n'
    bundle = forged(tmp_path / "b.zip", exported, {"specs/more.toml": f'kind = "model"\n{text}'})
    assert mtrun(tmp_path, "import", str(bundle), "new").code == 0


def test_a_spec_that_is_no_toml_is_refused(exported: Path, tmp_path: Path) -> None:
    bundle = forged(tmp_path / "b.zip", exported, {"specs/more.toml": "kind = "})
    refused = mtrun(tmp_path, "import", str(bundle), "new")
    assert refused.code == 2 and "specs/more.toml:2" in refused.err and not (tmp_path / "new").exists()


# Hidden in files of other kinds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["specs/ground.csv", "results/demo/ground.json", "registry/ID/log.txt"])
def test_a_profile_stands_on_no_file_of_another_kind(exported: Path, tmp_path: Path, name: str) -> None:
    """Such a file is not looked through; and so what it says of an executor is never read."""
    files = files_of(exported)
    id = next(one.split("/")[1] for one in files if one.startswith("registry/"))
    name = name.replace("ID", id)
    hidden = b'[executor]\ntype = "command"\nhosts = ["x"]\ntemplate = "touch owned"\n'
    if name in files:
        manifest = json.loads(files[f"registry/{id}/manifest.json"])
        log = {"size": len(hidden), "sha256": hashlib.sha256(hidden).hexdigest()}
        manifest["files"]["log.txt"] = log
        del manifest["sha256"]
        files[f"registry/{id}/manifest.json"] = json_with_checksum(manifest)
    files[name] = hidden
    files[PROFILE] = f'extends = "../../{name}"\n'.encode() + files[PROFILE]
    bundle = packed(tmp_path / "b.zip", resigned(files))
    done = mtrun(tmp_path, "import", str(bundle), "new")
    if name.startswith("results/"):
        assert done.code == 2 and f"{name} is not the result of one of its systems" in done.err
        assert not (tmp_path / "new" / "registry").exists()
        return
    assert done.code == 2 and "its name does not end with `.toml`" in done.err and not (tmp_path / "new").exists()
    for file, content in files.items():  # as one could copy them by hand
        (tmp_path / "new" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "new" / file).write_bytes(content)
    done = mtrun(tmp_path / "new", "build", "specs/sum.toml", "--set", "train.seed=3")
    assert done.code == 2 and "its name does not end with `.toml`" in done.err
    with pytest.raises(SpecError, match="does not end with"):
        choose(None, [], tmp_path / "new", "demo")


@pytest.mark.parametrize("name", [
    "registry/ID/evil.toml", "registry/ID/evil.py", "registry/ID/sitecustomize.py", "transformers/evil.py",
    "transformers/pytorch_model.bin", "sitecustomize.py", "specs/conftest.py", "parts/executors/evil.py",
    "specs/parts/heads/evil.py", "runner/__init__.py", "results/demo/evil.toml", "tokenizers/evil.py",
])
def test_no_code_and_no_hidden_spec_comes_with_a_bundle(exported: Path, tmp_path: Path, name: str) -> None:
    files = files_of(exported)
    id = next(one.split("/")[1] for one in files if one.startswith("registry/"))
    bundle = packed(tmp_path / "b.zip", resigned({**files, name.replace("ID", id): b"1 / 0"}))
    refused = mtrun(tmp_path, "import", "--trust", str(bundle), "new")
    assert refused.code == 2 and "is no file of a bundle" in refused.err and not (tmp_path / "new").exists()


@pytest.mark.parametrize("key", ["members", "extends", "suite"])
def test_a_spec_names_toml_files_only(trained: Path, tmp_path: Path, key: str) -> None:
    root = tmp_path / "copy"
    shutil.copytree(trained, root)
    for name, other in (("sum.toml", "sum.txt"), ("suites/tiny.toml", "suites/tiny.txt")):
        shutil.copy(root / "specs" / name, root / "specs" / other)
    text = {"members": 'kind = "ensemble"\n[tree]\ntype = "average"\nmembers = ["sum.txt", "sum.toml"]\n',
            "extends": 'kind = "model"\nextends = "sum.txt"\n',
            "suite": 'kind = "model"\nsuite = "suites/tiny.txt"\nextends = "sum.toml"\n'}[key]
    (root / "specs" / "new.toml").write_text(text)
    done = mtrun(root, "check", "specs/new.toml")
    assert done.code == 2 and "its name does not end with `.toml`" in done.err, done.err


def test_a_run_does_not_say_how_a_soup_is_started(trained: Path, tmp_path: Path) -> None:
    """What a manifest says of resources is in no id, so that anybody may have written it."""
    root = tmp_path / "copy"
    shutil.copytree(trained, root)
    node = next(iter(runs.planned(root, "sum").nodes.values()))
    registry = Registry(root / "registry")
    run = registry.find(node.id)
    assert run
    content = {name: run.read(name) for name in run.manifest["files"]}
    manifest = {key: value for key, value in run.manifest.items() if key != "sha256"}
    manifest["spec"]["resources"] = {**manifest["spec"]["resources"], "extra": ["--wrap=touch owned"]}
    registry.drop(node.id)
    registry.commit(node.id, content, manifest)
    (root / "specs" / "soup.toml").write_text(f'kind = "soup"\nmembers = ["run:{node.id}"]\n')
    soup = runs.leaf(runs.planned(root, "soup"), "soup").spec
    assert isinstance(soup, Leaf) and soup.model.resources == Resources()


# However it is written -----------------------------------------------------------------------------------------------


def paths(value: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the keys above all plain values, as tomli reads them."""
    for key, inner in value.items():
        tables = [one for one in inner if isinstance(one, dict)] if isinstance(inner, list) else [inner]
        found = [path for one in tables if isinstance(one, dict) for path in paths(one, (*above, key))]
        yield from found if any(isinstance(one, dict) for one in tables) else [(*above, key)]


@pytest.mark.parametrize("seed", range(300))
def test_however_a_file_is_written_what_it_runs_is_seen(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toml_writer, "NAMES", ("executor", "resources", "extra", "account", "a", "é", "executor.type",
                                               "resources.extra", "type", "x y", "b", "c", "d", "", "1", "2", "3", "4"))
    text = toml_writer.Writer(random.Random(seed)).text
    wanted = sorted(
        ".".join(path) for path in paths(tomli.loads(text))
        if (dotted := ".".join(path).split("."))[0] == "executor"
        or any(pair in (["resources", "extra"], ["resources", "account"])
               for pair in (dotted[n : n + 2] for n in range(len(dotted)))))
    found = executables({"specs/x.toml": text.encode()})
    assert sorted(one.key for one in found) == wanted
    lines = text.split("\n")
    assert all(one.place.text == lines[one.place.line - 1].removesuffix("\r") for one in found)
