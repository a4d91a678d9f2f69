"""What comes from others is data: bundles, results, caches and manifests that lie, with seals that fit.

Whatever is changed, only mtrun's own errors come, nothing is run, nothing is written elsewhere, and a table shows no
number that does not follow from the predictions and the specs that lie beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy as tensor_file
from bundle_files import files_of, packed, resigned
from foreign import Watch, cached, mutate, nudged, with_checksum, written
from systems import build, mtrun

from runner.build.build import Build
from runner.build.bundle import bundle, import_bundle
from runner.build.bundle.record import Record
from runner.build.events import Event
from runner.build.scheduler import Scheduler
from runner.errors import MtrunError
from runner.plan.plan import PlannedNode
from runner.plan.planner import make_plan
from runner.results.leaderboard import tables
from runner.results.result_folder import read
from runner.worker.executors.inline import Inline

SPECS = ("sum", "pcgrad", "mean", "deep")
CLAIMED = ("seconds", "inference")
"""Columns that no one can compute again."""

Files = dict[str, bytes]
Row = dict[str, Any]


@pytest.fixture(scope="session")
def watch() -> Watch:
    return Watch()


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what only a power cut would show, and takes half of the time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def owned(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with results of all of its specs."""
    root = tmp_path_factory.mktemp("owned") / "project"
    shutil.copytree(trained, root)
    build(root, *SPECS)
    return root


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The files of the bundle of a tree."""
    path = tmp_path_factory.mktemp("exported") / "deep.zip"
    assert mtrun(trained, "export", "specs/deep.toml", "-o", str(path)).code == 0
    return files_of(path)


# What is true --------------------------------------------------------------------------------------------------------


def shown(root: Path) -> list[Row]:
    """Return the rows of all tables of a project, of both splits, without costs; none if they are refused."""
    rows = []
    for split in ("dev", "test"):
        with contextlib.suppress(MtrunError):
            text = tables(read(root / "results"), "json", split).text
            for part in json.loads(text):
                about = {key: part[key] for key in ("profile", "suite", "sha256", "split")}
                rows += [about | {key: value for key, value in row.items() if key not in CLAIMED}
                         for row in part["rows"]]
    return rows


class Truth:
    """Computes the table of a project again from its specs and runs alone; equal ones once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.known = folder, dict[str, list[Row]]()

    def of(self, root: Path, profile: str, settings: Sequence[str]) -> list[Row]:
        files = [path for kind in ("specs/**/*.toml", "registry/[0-9a-f]*/*") for path in sorted(root.glob(kind))]
        content = [(str(path.relative_to(root)), path.read_bytes()) for path in files if path.is_file()]
        key = hashlib.sha256(repr((profile, settings, content)).encode(errors="replace")).hexdigest()
        if key not in self.known:
            self.known[key] = self._computed(content, profile, settings)
        return self.known[key]

    def _computed(self, content: list[tuple[str, bytes]], profile: str, settings: Sequence[str]) -> list[Row]:
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            root = Path(name)
            for file, data in content:
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                (root / file).write_bytes(data)
            for spec in sorted((root / "specs").glob("*.toml")):
                with contextlib.suppress(MtrunError):
                    plan = make_plan(root, [spec], profile, settings)
                    if not plan.todo():
                        list(Build(plan, Scheduler(plan.registry, root, Inline(), jobs=1), root / "results").events())
            if not (root / "results").exists():
                return []
            self._check_plainly(root, rows := shown(root))
            return rows

    def _check_plainly(self, root: Path, rows: list[Row]) -> None:
        """Compute the accuracies of leaves again by other means."""
        for row in rows:
            if row["kind"] == "leaf":
                scores = tensor_file.load_file(root / "registry" / row["id"] / "predictions.safetensors")
                labels = labels_of(root)["sentiment"][row["split"]]
                right = (scores[f"{row['split']}/sentiment/scores"].argmax(axis=1) == labels).mean()
                assert row["sentiment.apparent"] == round(float(right), 6)


def labels_of(root: Path) -> dict[str, dict[str, np.ndarray]]:
    """Return the labels of the suite that the specs of a project name."""
    plan = make_plan(root, [root / "specs" / "sum.toml"], "demo")
    (data,) = plan.data.values()
    return {task: {split: part.labels for split, part in parts.items()} for task, parts in data.splits.items()
            if part_has_labels(parts)}


def part_has_labels(parts: Any) -> bool:
    return all(part.labels is not None for part in parts.values())


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return Truth(tmp_path_factory.mktemp("truth"))


def untrue(rows: list[Row], true: list[Row]) -> list[str]:
    """Return a line for each row that is not what is true: another system of that name, or other numbers.

    A p-value is corrected for the systems that are shown, and may be unknown; so may an interval.
    """
    by_id = {(row["profile"], row["id"], row["split"]): row for row in true}
    return [f"{row['name']} ({row['id']}) on {row['split']}: {wrong}" for row in rows
            if row["id"] and (wrong := _wrong(row, by_id.get((row["profile"], row["id"], row["split"]))))]


def _wrong(row: Row, true: Row | None) -> list[str]:
    if true is None:
        return ["no such system"]
    names = {*(name.partition(" (")[0] for name in row["name"].split(", "))}
    wrong = [f"name {row['name']}"] * (not names <= {*true["name"].split(", ")})
    for key, value in row.items():
        is_less = key.endswith((".p", ".tied", ".low", ".high")) and value is None
        if key not in ("name", "members") and not key.endswith((".p", ".tied")) and not is_less and value != true[key]:
            wrong.append(f"{key} {value} for {true[key]}")
    return wrong


# Bundles -------------------------------------------------------------------------------------------------------------


def record_of(files: Files) -> dict[str, Any]:
    return json.loads(files["bundle.json"])  # type: ignore[no-any-return]


def with_record(files: Files, change: Callable[[dict[str, Any]], None]) -> Files:
    """Change the record of a bundle."""
    record = record_of(files)
    change(record)
    return {**files, "bundle.json": json.dumps(record).encode()}


def runs_of(files: Files) -> list[str]:
    return sorted({name.split("/")[1] for name in files if name.startswith("registry/")})


def change_json(chance: random.Random, files: Files) -> Files:
    """Change a value anywhere."""
    name = chance.choice([name for name in files if name.endswith(".json") and not name.startswith("tokenizers/")])
    return {**files, name: written(chance, mutate(chance, json.loads(files[name])))}


def change_manifest(chance: random.Random, files: Files) -> Files:
    name = chance.choice([name for name in files if name.endswith("/manifest.json")])
    return {**files, name: written(chance, mutate(chance, json.loads(files[name])))}


def change_record(chance: random.Random, files: Files) -> Files:
    record = record_of(files)
    del record["files"]
    return {**files, "bundle.json": written(chance, mutate(chance, record))}


def change_predictions(chance: random.Random, files: Files) -> Files:
    """Change scores or ids, of the last epoch or of all, or exchange those of two runs."""
    one, two = chance.sample(runs_of(files), 2)
    kind = chance.choice(["predictions", "epochs"])
    first, second = (f"registry/{id}/{kind}.safetensors" for id in (one, two))
    if chance.random() < 0.3:
        return {**files, first: files[second], second: files[first]}
    tensors = tensor_file.load(files[first])
    name = chance.choice(sorted(tensors))
    value = tensors[name].copy()
    flat = value.reshape(-1)
    for _ in range(chance.choice([1, 30])):
        flat[chance.randrange(len(flat))] = chance.choice([0, 1, 65, 3])
    tensors[name] = value
    how = chance.random()
    if how < 0.1:
        tensors[name] = value.astype(chance.choice([np.float64, np.int8, np.float16]))
    elif how < 0.2:
        tensors[chance.choice(["x", "dev/x/scores", "train/sentiment/scores", "../x"])] = tensors.pop(name)
    elif how < 0.3:
        tensors[name] = value[: len(value) // 2]
    elif how < 0.35 and value.dtype == np.float32:
        flat[0] = np.nan
    return {**files, first: tensor_file.save(tensors)}


def change_labels(chance: random.Random, files: Files) -> Files:
    (name,) = (name for name in files if name.startswith("labels/"))
    by_task = json.loads(files[name])
    part = by_task[chance.choice(sorted(by_task))][chance.choice(["dev", "test"])]
    if chance.random() < 0.7:
        for _ in range(chance.choice([1, 10])):
            part["labels"][chance.randrange(len(part["labels"]))] = chance.choice([0.0, 1.0, 2.0, -1.0, 1e9, 0.5])
    elif chance.random() < 0.5:
        part["labels"].reverse()
    else:
        part["labels"] = chance.choice([None, [], part["labels"][:3]])
    return {**files, name: json.dumps(by_task).encode()}


def change_suite(chance: random.Random, files: Files) -> Files:
    """Call the suite by another hash, or its tasks by another kind or title."""
    def other(record: dict[str, Any]) -> None:
        (suite,) = record["suites"].values()
        task = chance.choice(suite["tasks"])[1]
        task["kind"] = chance.choice(["classification", "binary", "regression"])
        if "classes" in task:
            task["classes"] = chance.choice([1, 2, 5])

    if chance.random() < 0.6:
        return with_record(files, other)
    if chance.random() < 0.5:
        return with_record(files, lambda record: next(iter(record["suites"].values()))["tasks"].reverse())
    (sha,) = record_of(files)["suites"]
    return renamed(change_labels(chance, files), sha, nudged(chance, sha))


def renamed(files: Files, old: str, new: str) -> Files:
    """Replace a word, and its first 12 letters, in all names and texts."""
    def text(data: bytes) -> bytes:
        return data.replace(old.encode(), new.encode()).replace(old[:12].encode(), new[:12].encode())

    return {text(name.encode()).decode(): data if name.endswith(".safetensors") else text(data)
            for name, data in files.items()}


def change_ids(chance: random.Random, files: Files) -> Files:
    """Call a node by another id, or exchange two."""
    one, two = chance.sample([node["id"] for node in record_of(files)["nodes"]], 2)
    if chance.random() < 0.4:
        return renamed(files, one, nudged(chance, one))
    return renamed(renamed(renamed(files, one, "f" * 11 + "e"), two, one), "f" * 11 + "e", two)


def change_names(chance: random.Random, files: Files) -> Files:
    """Exchange names of nodes, or the systems of names, or name others."""
    def change(record: dict[str, Any]) -> None:
        nodes = record["nodes"]
        one, two = chance.sample(nodes, 2)
        how = chance.randrange(4)
        if how == 0:
            one["name"], two["name"] = two["name"], one["name"]
        elif how == 1:
            record["systems"] = {chance.choice(SPECS): one["id"]}
            record["specs"] = {name: f"specs/{name}.toml" for name in record["systems"]}
        elif how == 2:
            record["systems"]["deep"] = one["id"]
        else:
            one["name"] = chance.choice(["best ever", "deep", "../x", "sum@seed=1", ""])

    return with_record(files, change)


def change_tree(chance: random.Random, files: Files) -> Files:
    """Have a tree be another one of the same id."""
    def change(record: dict[str, Any]) -> None:
        node = chance.choice([node for node in record["nodes"] if node["tree"]])
        leaves = runs_of(files)
        if isinstance(node["tree"].get("members"), list) and chance.random() < 0.5:
            node["members"] = node["tree"]["members"] = chance.choice([leaves[:1], leaves[::-1], leaves * 2])
        else:
            node["tree"] = {"type": chance.choice(["average", "best", "stack", "greedy"]), "members": leaves}
            node["members"] = leaves

    return with_record(files, change)


def change_specs(chance: random.Random, files: Files) -> Files:
    """Change a spec, exchange two, or have one name programs or other places."""
    one, two = chance.sample([name for name in files if name.startswith("specs/")], 2)
    how = chance.random()
    if how < 0.3:
        return {**files, one: files[two], two: files[one]}
    if how < 0.6:
        lines = files[one].decode().splitlines()
        lines.insert(chance.randrange(len(lines) + 1), chance.choice(
            ['name = "../../x"', 'extends = "../../../x.toml"', "[train]\nseed = 3", "x = 1", 'kind = "soup"', "\x00",
             "a." * 2000 + "b = 1", "a = " + "[" * 20000, 'name = "sum"', "epochs = nan", "width = 999999999999",
             '[tree]\ntype = "average"\nmembers = ["sum.toml"]']))
        return {**files, one: "\n".join(lines).encode()}
    if how < 0.8:
        old = chance.choice([b"1e-3", b"60", b"pcgrad", b"sum.toml", b"similarity", b"demo", b"mse", b"0.1"])
        new = chance.choice([b"1e-2", b"61", b"../x", b"mean.toml", b"sentiment", b"bce", b"0.2", b"\xff", b"1e400"])
        return {name: data.replace(old, new) if name.startswith("specs/") else data for name, data in files.items()}
    return {**files, one: files[one] + b"\nx = 1\n"}


def change_programs(chance: random.Random, files: Files) -> Files:
    """Have a spec name a program, validly."""
    profile, spec = "specs/profiles/demo.toml", "specs/sum.toml"
    name, text = chance.choice([
        (profile, b'executor = { type = "command", hosts = ["x"], template = "touch SENTINEL" }\n'),
        (profile, b'resources = { extra = ["--wrap=touch SENTINEL"] }\n'),
        (spec, b'[resources]\npartition = "x SENTINEL"\n'), (spec, b'[resources]\naccount = "SENTINEL"\n')])
    return {**files, name: text + files[name] if name == profile else files[name] + b"\n" + text}


def change_paths(chance: random.Random, files: Files) -> Files:
    """Call a file by another name, or add one, code above all."""
    name = chance.choice(["../x.toml", "specs/../../x.toml", "specs/../../x/x.toml", "/tmp/mtrun-fuzz-x.toml",
                          "parts/heads/evil.py",
                          "specs/evil.py", "parts/__init__.py", "conftest.py", "specs/.x.toml", "results/x/x.json",
                          "registry/.cache/results/x.json", "registry/.attempts/x.lock", "results/demo/../../x.json",
                          "results/demo/other.json", "specs/parts/evil.toml", "specs/profiles/other.toml"])
    code = b"from pathlib import Path\nPath('SENTINEL').touch()\n"
    if chance.random() < 0.5:
        return {**files, name: code if name.endswith(".py") else b"x = 1\n"}
    files = dict(files)
    return {**files, name: files.pop(chance.choice([file for file in files if file != "bundle.json"]))}


def change_settings(chance: random.Random, files: Files) -> Files:
    def change(record: dict[str, Any]) -> None:
        record["settings"] = [chance.choice(["train.seed=3", "executor.command=touch SENTINEL", "resources.extra=['x']",
                                             "x", "tree.type=best", "train.epochs=1e400", "=", "a" * 5000, "name=x"])]
        if chance.random() < 0.5:
            record["profile"] = chance.choice(["../x", "other", "published", "demo.", "con"])

    return with_record(files, change)


FORGERIES = [change_json, change_json, change_manifest, change_record, change_predictions, change_labels, change_suite,
             change_ids, change_names, change_tree, change_specs, change_programs, change_paths, change_settings]


def sealed(chance: random.Random, files: Files) -> Files:
    """Return files whose manifests and record have the seals that fit them; sometimes one is left out."""
    files = dict(files)
    for name in [name for name in files if name.startswith("registry/") and name.endswith("/manifest.json")]:
        files[name] = sealed_manifest(chance, files[name], {
            other.rpartition("/")[2]: data for other, data in files.items()
            if other.startswith(name.rpartition("/")[0] + "/") and other != name})
    with contextlib.suppress(ValueError, RecursionError, AttributeError, KeyError, TypeError):
        record = json.loads(files["bundle.json"])
        record["sha256"] = ""
        return resigned({**files, "bundle.json": json.dumps(record).encode()})
    return {**files, "bundle.json": with_checksum(files["bundle.json"])}


def sealed_manifest(chance: random.Random, data: bytes, beside: Files) -> bytes:
    """Return a manifest with its seal, and with those of the files beside it."""
    with contextlib.suppress(ValueError, RecursionError, AttributeError, KeyError, TypeError):
        manifest = json.loads(data)
        manifest.pop("sha256", None)
        for file, content in beside.items():
            if file in manifest["files"] and chance.random() < 0.95:
                manifest["files"][file] |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        return with_checksum(json.dumps(manifest, indent=1, sort_keys=True).encode())
    return with_checksum(data)


def consistent(files: Files) -> Files:
    """Return a bundle whose results are computed from all else that it says, as a careful forger would."""
    with contextlib.suppress(Exception), tempfile.TemporaryDirectory() as name:
        for file, data in files.items():
            if file.startswith("registry/"):
                path = Path(name) / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        record = Record.from_bytes(files["bundle.json"], "")
        with bundle.opened(packed(Path(name) / "x.zip", files)) as held:
            labels = held.data()
        results = bundle.compute_results(record, Path(name) / "registry", labels, {}, Path(name))
        return {**{file: data for file, data in files.items() if not file.startswith("results/")}, **results}
    return files


def forged(chance: random.Random, files: Files) -> tuple[str, Files]:
    """Return the names of some changes, and a bundle with them and with seals that fit."""
    changes = [chance.choice(FORGERIES) for _ in range(chance.choice([1, 1, 1, 2, 3]))]
    for change in changes:
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            files = change(chance, files)  # one that does not fit after another
    files = sealed(chance, files)
    if chance.random() < 0.6:
        files = sealed(chance, consistent(files))
    return ", ".join(change.__name__ for change in changes), files


def numbers(kind: str, count: int) -> Iterator[tuple[int, random.Random]]:
    """Yield a source of chance for each case; a case is the same in the short form and in the long one."""
    for number in range(count):
        yield number, random.Random(f"{kind} {number}")


COUNTS = [100, pytest.param(2600, marks=pytest.mark.long)]
COUNTS_OF_OWN = [35, pytest.param(800, marks=pytest.mark.long)]


SHOWN = 12


def check(kind: str, count: int, folder: Path, examine: Callable[[random.Random, Path], str]) -> Counter[str]:
    """Examine cases, each in a new folder; say what came of them, and which failed."""
    seen, failed = Counter[str](), []
    for number, chance in numbers(kind, count):
        case = folder / "case"
        case.mkdir()
        try:
            seen[examine(chance, case)] += 1
        except Exception as error:
            failed.append(f"{kind} {number}: {type(error).__name__}: {str(error)[:500]} {_raised_at(error)}")
        shutil.rmtree(case)
    print(f"\n{count:,} of {kind}: {dict(seen)}")
    assert not failed, f"{len(failed)} of {count}:\n" + "\n".join(failed[:SHOWN])
    return seen


def _raised_at(error: Exception) -> str:
    """Return the last lines of mtrun that an error went through."""
    frames = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)
              if "/runner/" in frame.filename]
    return " < ".join(reversed(frames[-4:]))


@pytest.mark.parametrize("count", COUNTS)
def test_a_forged_bundle_is_refused_or_shows_what_is_true(
        exported: Files, owned: Path, tmp_path: Path, watch: Watch, truth: Truth, monkeypatch: pytest.MonkeyPatch,
        count: int) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)

    def examine(chance: random.Random, case: Path) -> str:
        changes, files = forged(chance, exported)
        (case / "inner").mkdir()
        path, project = packed(case / "forged.zip", files), case / "inner" / "project"
        if has_own := chance.random() < 0.1:
            shutil.copytree(owned, project)
        said = imported(path, project, watch)
        rows = [] if said is None else shown(project)
        assert said is None or not any(b"SENTINEL" in data for data in content(project).values()), changes
        if said is not None:
            true = truth.of(project, *said) + (truth.of(project, "demo", ()) if has_own else [])
            if wrong := untrue(rows, true):
                raise AssertionError(f"{changes}: {wrong}")
        if chance.random() < 0.1:
            with watch.only(project):
                done = mtrun(elsewhere, "reproduce", str(path))
            assert done.code in (0, 1, 2, 3), f"{changes}: {done.err}"
        assert not list(tmp_path.rglob("SENTINEL")) and not list(elsewhere.iterdir()), changes
        assert {p.name for p in case.iterdir()} <= {"forged.zip", "inner"}, changes
        return "refused" if said is None else "shown" if rows else "not shown"

    seen = check("bundles", count, tmp_path, examine)
    assert seen["refused"] > count / 3 and seen["shown"]


def imported(path: Path, project: Path, watch: Watch) -> tuple[str, tuple[str, ...]] | None:
    """Import a bundle; return its profile and settings, or None where it is refused and nothing was written."""
    before = content(project)
    try:
        with watch.only(project), bundle.opened(path) as held:
            import_bundle.import_into(held, project)
            return held.record.profile, held.record.settings
    except MtrunError as error:
        assert error.render() and content(project) == before
        return None


def content(folder: Path) -> Files:
    """Return all files in a folder but the reservations of running commands."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*")
            if file.is_file() and ".builds" not in file.parts}


# One's own files -----------------------------------------------------------------------------------------------------


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every leaf that would be trained fail."""
    def train(self: Scheduler, leaves: Sequence[PlannedNode], *more: Any) -> Iterator[Event]:
        self.failed |= {leaf.id for leaf in leaves}
        yield from ()

    monkeypatch.setattr(Scheduler, "train", train)


def rebuilt(root: Path) -> None:
    """Build all specs, or those that can be planned."""
    try:
        build(root, *SPECS)
    except MtrunError:
        for spec in SPECS:
            with contextlib.suppress(MtrunError):
                build(root, spec)


def asked(root: Path, *commands: tuple[str, ...]) -> None:
    """Run commands and check that none meets a bug."""
    for command in commands:
        done = mtrun(root, *command)
        assert done.code in (0, 1, 2, 3), f"{command}: {done.err[-1500:]}"


LOOKS = (("table",), ("ls",), ("plan", "specs/deep.toml"), ("verify",), ("gc", "--dry-run"),
         ("members", "specs/mean.toml"), ("export", "specs/deep.toml", "-o", "../bundle.zip"))


def changed(chance: random.Random, paths: Sequence[Path]) -> Path:
    """Change one of some files of JSON, or exchange it with another of them; return its path."""
    path, other = chance.choice(paths), chance.choice(paths)
    data = path.read_bytes()
    if chance.random() < 0.1:
        path.write_bytes(other.read_bytes())
    elif chance.random() < 0.05:
        path.write_bytes(data[: chance.randrange(len(data))])
    else:
        path.write_bytes(written(chance, mutate(chance, json.loads(data))))
    return path


@pytest.mark.parametrize("count", COUNTS_OF_OWN)
def test_results_that_lie_are_put_right_by_a_build(
        owned: Path, tmp_path: Path, watch: Watch, no_training: None, count: int) -> None:
    """A table shows one's own results as they are; one that contradicts another, or is none, is not shown."""
    true = shown(owned)

    def examine(chance: random.Random, case: Path) -> str:
        root = Path(shutil.copytree(owned, case / "project"))
        path = changed(chance, sorted((root / "results" / "demo").glob("*.json")))
        with watch.only(case):
            wrong = untrue(shown(root), true)
            asked(root, chance.choice(LOOKS))
            rebuilt(root)
        if still := untrue([row for row in shown(root) if row["profile"] == "demo"], true):
            raise AssertionError(f"{path.name}: {still}")
        return "shown until a build" if wrong else "never shown"

    assert check("results", count, tmp_path, examine)["never shown"] > count / 3


@pytest.mark.parametrize("count", COUNTS_OF_OWN)
def test_caches_that_lie_raise_no_other_error_and_are_no_loss(
        owned: Path, tmp_path: Path, watch: Watch, no_training: None, count: int) -> None:
    """A cache is one's own memory: a number in it is believed, but only for what it is the number of."""
    true = shown(owned)

    def examine(chance: random.Random, case: Path) -> str:
        root = Path(shutil.copytree(owned, case / "project"))
        cache = root / "registry" / ".cache"
        kind = chance.choice(["suites", "honest", "results", "results", "significance", "predictions"])
        paths = sorted(path for path in (cache / kind).rglob("*") if path.is_file())
        path, other = chance.choice(paths), chance.choice(paths)
        data, is_exchanged = path.read_bytes(), chance.random() < 0.2
        if is_exchanged:
            data = other.read_bytes()
            is_sealed = kind == "results" and chance.random() < 0.5
            path.write_bytes(cached(path.name, data.partition(b"\n")[2]) if is_sealed else data)
        elif kind == "predictions":
            path.write_bytes(changed_tensors(chance, data))
        else:
            _, _, data = data.partition(b"\n")
            try:
                data = written(chance, mutate(chance, json.loads(data)))
            except ValueError:
                data = nudged(chance, data.decode()).encode()
            path.write_bytes(cached(path.name, data))
        if kind in ("significance", "honest") or chance.random() < 0.3:
            shutil.rmtree(cache / "results", ignore_errors=kind != "results")
        with watch.only(case):
            asked(root, chance.choice(LOOKS))
            rebuilt(root)
            wrong = untrue(shown(root), true)
        if wrong and (is_exchanged or kind not in ("honest", "results")):
            raise AssertionError(f"{kind}: {wrong}")
        if others := [text for text in wrong if "no such system" in text or "name" in text]:
            raise AssertionError(f"{kind}: {others}")
        shutil.rmtree(cache)
        rebuilt(root)
        if still := untrue(shown(root), true):
            raise AssertionError(f"{kind}, without caches: {still}")
        return f"{kind} {'believed' if wrong else 'no loss'}"

    seen = check("caches", count, tmp_path, examine)
    assert sum(number for what, number in seen.items() if what.endswith("no loss")) > count / 3


def changed_tensors(chance: random.Random, data: bytes) -> bytes:
    """Change a file of predictions."""
    tensors = {name: value.copy() for name, value in tensor_file.load(data).items()}
    name = chance.choice(sorted(tensors))
    tensors[name].reshape(-1)[chance.randrange(tensors[name].size)] = chance.choice([0, 1, 65])
    return tensor_file.save(tensors) if chance.random() < 0.8 else data[: chance.randrange(len(data))]


@pytest.mark.parametrize("count", COUNTS_OF_OWN)
def test_manifests_that_lie_raise_no_other_error_and_show_no_wrong_number(
        owned: Path, tmp_path: Path, watch: Watch, no_training: None, truth: Truth, count: int) -> None:
    before = shown(owned)

    def examine(chance: random.Random, case: Path) -> str:
        root = Path(shutil.copytree(owned, case / "project"))
        paths = sorted((root / "registry").glob("[0-9a-f]*/manifest.json"))
        path = changed(chance, paths)
        beside = {file.name: file.read_bytes() for file in path.parent.iterdir() if file != path}
        path.write_bytes(sealed_manifest(chance, path.read_bytes(), beside))
        with watch.only(case):
            asked(root, chance.choice((*LOOKS, ("show", path.parent.name), ("diff", "sum", "pcgrad"))))
            rebuilt(root)
            rows = shown(root)
        true = truth.of(root, "demo", ())  # a run that is damaged now has the results that it had before
        if wrong := [text for row in rows if untrue([row], before) for text in untrue([row], true)]:
            raise AssertionError(str(wrong))
        return "same" if rows == before else "other"

    check("manifests", count, tmp_path, examine)
