"""Housekeeping beside work: builds, gc, rm, import, table, ls and verify at a time, killed at random."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from chaos import WRONG, Chaos, Loop
from projects import project
from systems import SPECS, mtrun

from runner.registry.registry import Registry
from runner.results.result import COSTS

OWN = {
    "lr": 'kind = "model"\nextends = "sum.toml"\n[sweep]\n"optimizer.lr_scale" = [1.5, 2.5]\n',
    "soup": 'kind = "soup"\nmembers = ["lr.toml"]\n',
}
FAR = {
    "own": 'kind = "model"\nextends = "sum.toml"\n[optimizer]\nlr_scale = 3.5\n',
    "far": 'kind = "ensemble"\n[tree]\ntype = "average"\nmembers = ["sum.toml", "own.toml"]\n',
}
"""Specs that a project gets from a bundle only."""

SETTINGS = ((), ("--set", "train.seed=7"), ("--set", "optimizer.lr=0.002"))

BUILDS = (("deep",), ("mean",), ("soup",), ("lr", "sum"), ("pcgrad", "lr"), ("deep", "soup"), ("mean", "pcgrad"),
          ("sum",))
"""The specs of builds that run at a time; each is started again with other settings."""

PATTERNS = ("sum*", "pcgrad*", "lr@*", "soup*", "own", "*@*seed=7*", "*@*lr=0.002*", "*")

KINDS = ("gc", "rm", "import", "table", "ls", "verify")

NO_RESERVATIONS = """
from runner.registry import reservations
reservations.read_reservations = lambda *arguments, **named: reservations.StoredReservations()
"""
NO_LEASES = """
import contextlib, os
from runner.registry import registry
registry.held = lambda path: contextlib.nullcontext(os.open(os.devnull, os.O_RDONLY))
"""

LONG_SECONDS = 600

KILLS = 12
"""Number of signals in the short form."""

MOST = 2000
"""Number of commands after which something broken should have been noticed."""


@dataclass(frozen=True)
class Ground:
    """A project in which the builds ran alone, and a bundle of it."""

    clean: Path
    bundle: Path
    settings: Sequence[Sequence[str]]


def done(root: Path, *arguments: str) -> str:
    """Run a command in this process, which nobody disturbs; return what it printed on standard output."""
    came = mtrun(root, *arguments)
    assert came.code == 0 and not any(wrong in came.out + came.err for wrong in WRONG), came
    return came.out


def finish(root: Path, bundle: Path, settings: Sequence[Sequence[str]]) -> str:
    """Run all builds and the import to their ends; return the table."""
    for chosen in settings:
        done(root, "build", "specs/deep.toml", "specs/soup.toml", "specs/lr.toml", "--executor", "inline", *chosen)
        for specs in BUILDS:
            done(root, "build", *(f"specs/{spec}.toml" for spec in specs), "--executor", "inline", *chosen)
    if bundle.exists():
        done(root, "import", str(bundle))
    done(root, "build", "specs/far.toml", "--executor", "inline")
    return done(root, "table", "results")


def grounds(folder: Path, settings: Sequence[Sequence[str]]) -> Ground:
    clean, bundle = project(folder / "clean", **SPECS, **OWN, **FAR), folder / "far.mtrun.zip"
    finish(clean, bundle, settings)
    done(clean, "export", "specs/far.toml", "-o", str(bundle))
    return Ground(clean, bundle, settings)


def builds(specs: Sequence[str], settings: Sequence[Sequence[str]]) -> Callable[[random.Random], list[str]]:
    """Return the arguments of a build of specs; the settings are drawn anew each time."""
    def arguments(chance: random.Random) -> list[str]:
        forced = ["--force", specs[0]] if chance.random() < 0.2 and "lr" not in specs else []  # `lr` names no one node
        inline = ["--executor", "inline"] if chance.random() < 0.2 else ["-j", chance.choice("12")]
        paths = [f"specs/{spec}.toml" for spec in specs]
        return ["build", *paths, "--json", *inline, *forced, *chance.choice(settings)]

    return arguments


def removals(chance: random.Random) -> list[str]:
    """Return the arguments of a removal; members of soups keep their weights, of which soups are made."""
    if chance.random() < 0.25:
        return ["rm", "--weights", chance.choice(("pcgrad*", "sum*", "own"))]
    return ["rm", *chance.choice((["--force"], ["--force"], [])), chance.choice(PATTERNS)]


def chaos(root: Path, ground: Ground, seed: int, kill_seconds: float) -> Chaos:
    """Return a project with 8 builds and all housekeeping, not yet begun."""
    loops = {f"build-{i}": Loop(builds(specs, ground.settings)) for i, specs in enumerate(BUILDS)}
    loops |= {
        "gc": Loop(lambda chance: ["gc"], pause=1),
        "rm-1": Loop(removals, (0, 2), pause=1),
        "rm-2": Loop(removals, (0, 2), pause=1),
        "import": Loop(lambda chance: ["import", str(ground.bundle)], pause=2),
        "table": Loop(lambda chance: ["table", "results"], pause=2),
        "ls": Loop(lambda chance: ["ls", *chance.choice(((), ("--json",), ("--sort", "size")))], pause=2),
        "verify": Loop(lambda chance: ["verify"], pause=2),
    }

    def edit(chance: random.Random) -> None:
        """Remove results with settings, or what the bundle brought, so that gc finds runs without references."""
        results = root / "results" / "demo"
        paths = list(results.glob("*@*.json"))
        if chance.random() < 0.3 and (results / "deep.json").exists():
            paths = [*results.glob("far.json"), *results.glob("own.json"), *(root / "specs" / f"{n}.toml" for n in FAR)]
        elif chance.random() < 0.5:
            paths = chance.sample(paths, len(paths) // 2)
        for path in paths:
            path.unlink(missing_ok=True)

    return Chaos(root, loops, random.Random(seed), kill_seconds, edit=edit)


def told(work: Chaos) -> str:
    """Return how many commands ended, and how, as text."""
    lines = [f"{work.ended.total()} commands, {work.kills.total()} signals, {work.trained} leaves trained"]
    for kind in ("build", *KINDS):
        codes = sorted((code, count) for (other, code), count in work.ended.items() if other == kind)
        lines.append(f"{kind}: exit codes " + ", ".join(f"{code} ({count} times)" for code, count in codes))
    return "\n".join([*lines, f"signals: {dict(work.kills)}"])


def contents(root: Path) -> dict[str, bytes]:
    """Return all published files of a project but the costs, which are times."""
    results = root / "results"
    return {str(path.relative_to(results)): path.read_bytes() for path in sorted(results.rglob("*.*"))
            if path.is_file() and path.name[0] != "." and path.name != COSTS}


def answers(root: Path) -> dict[str, tuple[str, str | None]]:
    """Return digest and weights of all runs of a project by id."""
    return {run.id: (run.digest, run.weights) for run in Registry(root / "registry").runs()}


def check_end(root: Path, ground: Ground) -> None:
    """Finish all builds, and compare the project with one in which they ran alone."""
    table = finish(root, ground.bundle, ground.settings)
    assert table == done(ground.clean, "table", "results")
    found, expected = contents(root), contents(ground.clean)
    assert found.keys() == expected.keys()
    assert not [name for name in found if found[name] != expected[name]]
    assert json.loads((root / "results/demo" / COSTS).read_text()).keys() == json.loads(
        (ground.clean / "results/demo" / COSTS).read_text()).keys()
    done(root, "verify")
    done(root, "gc")
    registry, alone = Registry(root / "registry"), answers(ground.clean)
    assert registry.ids() == sorted(alone)
    for run in registry.runs():
        run.verify()
        assert run.digest == alone[run.id][0] and run.weights in (None, alone[run.id][1])
        assert not any(wrong.encode() in run.read("log.txt") for wrong in WRONG)
    left = [path for name in (".attempts", ".builds", ".damaged", ".replaced") if (registry.root / name).exists()
            for path in (registry.root / name).iterdir()]
    assert not left
    hidden = [name for _, _, files in os.walk(root) for name in files if name[0] == "."]
    print(f"{len(hidden)} temporary files of killed commands are left, which nothing reads: {hidden}")


def begun(folder: Path, ground: Ground, seed: int, kill_seconds: float) -> Chaos:
    """Make a project with the runs and results of the bundle, so that there is a table; return what is to run in it."""
    root = project(folder / "project", **SPECS, **OWN)
    done(root, "import", str(ground.bundle))
    return chaos(root, ground, seed, kill_seconds)


@pytest.mark.parametrize("is_long", [False, pytest.param(True, marks=pytest.mark.long)], ids=["short", "long"])
def test_housekeeping_beside_builds_that_are_killed(tmp_path: Path, is_long: bool) -> None:
    ground = grounds(tmp_path, SETTINGS if is_long else SETTINGS[:2])
    work = begun(tmp_path, ground, seed=3, kill_seconds=1.5 if is_long else 0.5)
    end = time.monotonic() + LONG_SECONDS

    def is_enough() -> bool:
        if is_long:
            return time.monotonic() > end
        is_done = work.trained and all(map(work.finished, ("build", *KINDS)))
        return bool(work.problems) or (work.kills.total() >= KILLS and bool(is_done))

    if not is_long:
        work.most_kills = KILLS
    work.run(is_enough)
    print(f"\n{told(work)}")
    assert not work.problems, "\n\n".join(work.problems)
    check_end(work.root, ground)


@pytest.mark.long
@pytest.mark.parametrize("broken", [NO_RESERVATIONS, NO_LEASES], ids=["reservations", "leases"])
def test_it_is_noticed_where_nothing_is_kept_for_whoever_needs_it(tmp_path: Path, broken: str) -> None:
    work = begun(tmp_path, grounds(tmp_path, SETTINGS[:2]), seed=1, kill_seconds=4.0)
    work.broken = broken
    work.run(lambda: bool(work.problems) or work.ended.total() > MOST)
    assert work.problems, told(work)
    print(f"\nnoticed after {work.ended.total()} commands: {work.problems[0][:200]}")
