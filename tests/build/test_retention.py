"""What keeps runs from gc: whatever becomes unreadable, nothing is removed that was kept while all could be read."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import runs
from hypothesis import given
from hypothesis import strategies as st
from projects import project
from systems import mtrun

from runner.build.gc import Scan, existing_names
from runner.build.retention import Retention
from runner.plan.planner import make_plan
from runner.registry.registry import Registry
from runner.registry.reservations import StoredReservations
from runner.specs.spec import Leaf
from runner.specs.sweep import is_point, points, spread
from runner.specs.toml import parse

FILES = '''
kind = "suite"
type = "files"
folder = "data"
[tasks.sentiment]
title = "S"
kind = "classification"
classes = 2
columns = ["sentence"]
label = "label"
train = "train.tsv"
dev = "dev.tsv"
'''
ONE = '''
kind = "model"
[heads.sentiment]
type = "linear"
loss = "cross_entropy"
[combiner]
type = "sum"
[schedule]
type = "constant"
'''
SPECS = {
    "one": ONE,
    "lr": 'kind = "model"\nextends = "one.toml"\n[sweep]\n"train.seed" = [1, 2]\n',
    "other": 'kind = "model"\nname = "renamed"\nextends = "one.toml"\n[train]\nseed = 3\n',
    "long": f'kind = "model"\nname = "{"x" * 120}"\nextends = "one.toml"\n[sweep]\n"train.seed" = [4]\n',
    "soup": 'kind = "soup"\nmembers = ["lr.toml"]\n',
    "both": 'kind = "ensemble"\n[tree]\ntype = "average"\nmembers = ["../away/far.toml", "lr.toml"]\n',
    "own": 'kind = "model"\nextends = "one.toml"\n[heads.sentiment]\ntype = "mine"\nloss = "cross_entropy"\n',
}
HEAD = """
from runner.parts.heads.linear import Linear


class Mine(Linear):
    type = "mine"
"""


def rows(split: str) -> str:
    return "id\tlabel\tsentence\n" + "".join(f"{split}{n}\t{n % 2}\tit was film {n}\n" for n in range(9))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two profiles, the finished runs of all its specs under both, some of --set, and old ones."""
    root = project(tmp_path, **SPECS)
    profile = (root / "specs" / "profiles" / "demo.toml").read_text().partition("[heads")[0]
    for name, text in {"specs/suites/f.toml": FILES, "specs/profiles/f.toml": profile.replace("tiny.toml", "f.toml"),
                       "data/train.tsv": rows("train"), "data/dev.tsv": rows("dev"), "parts/heads/mine.py": HEAD,
                       "away/far.toml": ONE + "[train]\nseed = 5\n"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.chdir(root)
    for profile in ("demo", "f"):
        finish(root, profile)
    finish(root, "demo", "optimizer.lr=0.5")
    finish(root, "f", "optimizer.lr=0.25")
    published = next(iter(make_plan(root, [root / "specs" / "one.toml"], "demo", ["optimizer.lr=0.5"]).nodes))
    (root / "results" / "f").mkdir(parents=True)
    (root / "results" / "f" / "one@optimizer.lr=0.5.json").write_text(f'{{"id": "{published}"}}')
    return root


def finish(root: Path, profile: str, *settings: str) -> None:
    """Write the runs of all specs under a profile, called as a build with settings calls them."""
    specs = [root / "specs" / f"{name}.toml" for name in SPECS]
    plan = make_plan(root, specs, profile, settings)
    for node in plan.nodes.values():
        if isinstance(node.spec, Leaf) and not plan.registry.has(node.id):
            name = "@".join([node.name.partition("@")[0], *settings]) if settings else node.name
            runs.finished(plan, node, {"name": name})


def removed(root: Path) -> set[str]:
    """Return the ids of the runs that gc would remove."""
    registry = Registry(root / "registry")
    scan = Scan(registry, Retention.of(root), StoredReservations(), existing_names(registry))
    return {one.id for one in scan.garbage()}


def replace(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def relink(path: Path) -> None:
    """Have a path refuse to be read, by root too."""
    path.rename(path.with_name(f"{path.name}.away"))
    path.symlink_to(path.name)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def nameless(path: Path) -> None:
    path.write_text(f"name = 3\n{path.read_text()}")


LOSSES: dict[str, Callable[[Path], object]] = {
    "no data": lambda p: (p / "data").rename(p / "elsewhere"),
    "bad data": lambda p: (p / "data" / "dev.tsv").write_bytes(b"\xff\xfe\x00"),
    "a typo in a spec": lambda p: replace(p / "specs" / "one.toml", "linear", "linaer"),
    "a typo in each": lambda p: [replace(p / "specs" / f"{name}.toml", "kind", "kidn") for name in SPECS],
    "a sweep that is wrong": lambda p: replace(p / "specs" / "lr.toml", "[1, 2]", "1"),
    "no weights": lambda p: replace(p / "specs" / "profiles" / "f.toml", '"scratch"', '"./weights"'),
    "no base": lambda p: (p / "specs" / "one.toml").rename(p / "two.toml"),
    "a profile that is no TOML": lambda p: (p / "specs" / "profiles" / "f.toml").write_text("suite = "),
    "a profile of another key": lambda p: replace(p / "specs" / "profiles" / "f.toml", "lr =", "rl ="),
    "a suite that is no TOML": lambda p: (p / "specs" / "suites" / "f.toml").write_text("kind = "),
    "a suite that is gone": lambda p: (p / "specs" / "suites" / "f.toml").unlink(),
    "a part that raises": lambda p: (p / "parts" / "heads" / "mine.py").write_text("1 / 0"),
    "a part that is gone": lambda p: (p / "parts" / "heads" / "mine.py").unlink(),
    "no profile": lambda p: (p / "specs" / "profiles").rename(p / "profiles"),
    "a profile that cannot be read": lambda p: relink(p / "specs" / "profiles" / "f.toml"),
    "a spec that is no TOML": lambda p: (p / "specs" / "other.toml").write_text("kind = "),
    "a spec that is a pipe": lambda p: pipe(p / "specs" / "other.toml"),
    "a spec that cannot be read": lambda p: relink(p / "specs" / "other.toml"),
    "a spec whose name is no text": lambda p: nameless(p / "specs" / "lr.toml"),
    "specs that cannot be read": lambda p: relink(p / "specs"),
    "a result that cannot be read": lambda p: relink(p / "results" / "f" / "one@optimizer.lr=0.5.json"),
    "a result that is a pipe": lambda p: pipe(p / "results" / "f" / "one@optimizer.lr=0.5.json"),
    "results that cannot be read": lambda p: relink(p / "results"),
    "results that are not mounted": lambda p: ((p / "results").rename(p / "r"), (p / "results").symlink_to("none")),
    "results that are linked": lambda p: ((p / "results" / "f").rename(p / "r"),
                                          (p / "results" / "f").symlink_to("../r")),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_what_cannot_be_read_never_has_more_removed(root: Path, loss: str) -> None:
    before = removed(root)
    assert 0 < len(before) < len(Registry(root / "registry").ids())
    LOSSES[loss](root)
    after = removed(root)
    assert after <= before, {Registry(root / "registry").find(id).manifest["name"] for id in after - before}  # type: ignore[union-attr]


@pytest.mark.parametrize("seed", range(8))
def test_nor_have_several_losses_at_a_time(root: Path, seed: int) -> None:
    before, chance = removed(root), random.Random(seed)
    for loss in chance.sample(sorted(LOSSES), 2):
        try:
            LOSSES[loss](root)
        except (OSError, AssertionError):
            continue  # what the first loss took away
    assert removed(root) <= before


def test_a_build_with_settings_of_a_spec_without_data_keeps_its_runs(root: Path) -> None:
    (root / "data").rename(root / "elsewhere")
    kept = Registry(root / "registry").ids()
    names = {run.manifest["name"]: run for id in kept if id not in removed(root)
             if (run := Registry(root / "registry").find(id))}
    assert {"one@optimizer.lr=0.25", "lr@optimizer.lr=0.25", "renamed@optimizer.lr=0.25"} <= names.keys()


def test_a_profile_whose_data_were_never_there_keeps_what_it_can_have_made(root: Path) -> None:
    """As the profile `mine` that `mtrun init` makes: gc is of use beside it."""
    before = removed(root)
    assert before
    replace(root / "specs" / "suites" / "f.toml", '"data"', '"never"')
    registry = Registry(root / "registry")
    found = {id: run.manifest for id in before if (run := registry.find(id))}
    made_here = {id for id, manifest in found.items() if manifest["spec"]["suite"]["type"] == "demo"}
    assert removed(root) == {id for id in made_here if "soup" not in found[id]["name"]} != set()
    (root / "specs" / "suites" / "tiny.toml").rename(root / "specs" / "suites" / "small.toml")
    replace(root / "specs" / "profiles" / "demo.toml", "tiny.toml", "small.toml")
    assert not removed(root), "a suite that is no more there may be one that was renamed"


def test_gc_says_what_it_cannot_tell(root: Path) -> None:
    (root / "data").rename(root / "elsewhere")
    replace(root / "specs" / "other.toml", "seed", "sede")
    (root / "specs" / "broken.toml").write_text("kind = ")
    (root / "specs" / "._one.toml").write_bytes(b"\0\5\x16\7")
    said = mtrun(root, "gc")
    assert said.code == 0 and "0 bytes were removed" in said.err
    lines = said.err.splitlines()
    assert [line for line in lines if line.startswith("no data file dev.tsv, train.tsv") and "may be a run of" in line]
    assert [line for line in lines if line.startswith("specs/other.toml has problems")]
    assert [line for line in lines if line.startswith("specs/broken.toml cannot be read, so that every run is kept")]
    assert "._one" not in said.err and len(lines) == 4, said.err


def test_rm_asks_results_that_cannot_be_read(root: Path) -> None:
    pipe(root / "results" / "f" / "one@optimizer.lr=0.5.json")
    refused = mtrun(root, "rm", "renamed@optimizer.lr=0.25")
    assert refused.code == 2 and "results/f/one@optimizer.lr=0.5.json cannot be read" in refused.err
    assert mtrun(root, "rm", "--force", "renamed@optimizer.lr=0.25").code == 0


@given(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.,=+@-]{0,126}[A-Za-z0-9_]", fullmatch=True),
       st.lists(st.integers(-99, 99) | st.text(st.characters(codec="ascii", categories=["L", "N", "P"])), min_size=1,
                max_size=3, unique_by=lambda value: str(value).lower()))
def test_every_point_of_a_sweep_is_known_by_its_name(name: str, values: list[int | str]) -> None:
    made = points(name, spread(parse(f'"train.some_key" = {json.dumps(values)}\n', "sweep")))
    assert len(made) == len(values) and all(is_point(label, name) for label, _ in made)


def test_a_name_that_begins_alike_is_another() -> None:
    assert not is_point("meander", "mean") and not is_point("mean-2", "mean") and is_point("mean@seed=1", "mean")
