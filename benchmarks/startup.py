"""How long a person waits for the commands that train nothing, each in a process of its own."""

from __future__ import annotations

import atexit
import hashlib
import resource
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from runner.part import plain_dump
from runner.plan.plan import PlannedNode
from runner.plan.planner import make_plan
from runner.registry.manifest import json_with_checksum
from runner.registry.registry import FORMAT, MANIFEST
from runner.specs.spec import Leaf

from . import Case

ROOT = Path(__file__).parents[1]
MTRUN = str(Path(sysconfig.get_path("scripts")) / "mtrun")
PLAN = [MTRUN, "plan", "specs/ensemble7.toml"]
BUILD = [MTRUN, "build", "specs/ensemble7.toml", "--set", "train.epochs=1", "--set", "train.steps=2"]
RUNS = 10_000


def cases() -> list[Case]:
    """Return the commands that are to answer at once, and beside them what Python itself needs."""
    return [
        _case("python -c pass", [sys.executable, "-c", "pass"], _project),
        _case("python -c 'import click'", [sys.executable, "-c", "import click"], _project),
        _case("mtrun --help", [MTRUN, "--help"], _project, 0.15, 0.1),
        _case("mtrun plan specs/ensemble7.toml", PLAN, _project, 0.6),
        _case("mtrun table results/", [MTRUN, "table", "results/"], _built, 0.6, 0.4),
        _case("mtrun build specs/ensemble7.toml, nothing to do", BUILD, _built, 1.0, 0.6),
        _case("mtrun --help, processor time", [MTRUN, "--help"], _project, clock=_processor),
        _case("mtrun plan, processor time", PLAN, _project, clock=_processor),
        _case(f"the same plan among {RUNS:,} runs", PLAN, _crowded),
        _case("the same plan, the data made anew", PLAN, _forgetful),
    ]


def _processor() -> float:
    """Return the seconds of processor time of all commands so far; no other work on the machine adds to it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _case(name: str, command: list[str], folder: Callable[[], Path], goal: float | None = None,
          stretch: float | None = None, clock: Callable[[], float] = time.perf_counter) -> Case:
    """Return a case that runs a command in a folder."""

    def sample() -> float:
        cwd = folder()
        started = clock()
        subprocess.run(command, cwd=cwd, stdout=subprocess.DEVNULL, check=True)
        return clock() - started

    return Case(name, sample, goal=goal, stretch=stretch)


@cache
def _project(kind: str = "") -> Path:
    """Return a copy, one of each kind, of this project's specs with nothing trained, which is removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="mtrun-benchmark-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shutil.copytree(ROOT / "specs", folder / "specs")
    return folder


@cache
def _built() -> Path:
    """Return such a project in which Ensemble 7 is built, of models that hardly learned."""
    folder = _project("built")
    subprocess.run(BUILD, cwd=folder, stdout=subprocess.DEVNULL, check=True)
    return folder


@cache
def _crowded() -> Path:
    """Return such a project with runs in its registry that are like `sum` but for their seeds."""
    folder = _project("crowded")
    planned = next(iter(make_plan(folder, [folder / "specs" / "models" / "sum.toml"], "demo").nodes.values()))
    manifest = _manifest(planned)
    for seed in range(RUNS):
        manifest["spec"]["train"]["seed"] = seed
        manifest["id"] = hashlib.sha256(str(seed).encode()).hexdigest()[:12]
        (folder / "registry" / manifest["id"]).mkdir(parents=True)
        (folder / "registry" / manifest["id"] / MANIFEST).write_bytes(json_with_checksum(manifest))
    return folder


def _manifest(planned: PlannedNode) -> dict[str, Any]:
    """Return the manifest of a run of a planned leaf, as far as a plan reads it."""
    assert isinstance(planned.spec, Leaf)
    return {"format": FORMAT, "name": planned.name, "what": planned.what, "spec": plain_dump(planned.spec.model),
            "suite": {"sha256": planned.suite}, "inputs": {}, "files": {}, "dev": {}, "epoch": 1, "parameters": 1,
            "seconds": 1.0, "environment": {"device": "", "threads": 1}}


def _forgetful() -> Path:
    """Return such a project whose cache is empty."""
    folder = _project("forgetful")
    shutil.rmtree(folder / "registry", ignore_errors=True)
    return folder
