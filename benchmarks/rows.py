"""How a suite of a million rows is read: time and peak memory, in a process each, against pandas and pyarrow.

The clock starts when all that is needed is imported; the peak is of the whole process. A plan is cold where the
suite's hash is not in the cache of the registry, and warm where it is.
"""

from __future__ import annotations

import atexit
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from runner.cli import scaffold

from . import Case, Ratio
from .workload import ROOT

ROWS = 1_000_000
DEV = 0.01
FORMATS = {"CSV": "csv", "JSON lines": "jsonl", "Parquet": "parquet"}
"""Name in figures -> ending."""

CLOCK = """
import json, pathlib, sys, time
def peak():
    return next(int(x.split()[1]) for x in open("/proc/self/status") if x.startswith("VmHWM")) / 1e3
def told(work):
    started = time.perf_counter()
    kept = work()
    print(json.dumps({"seconds": time.perf_counter() - started, "megabytes": peak()}))
"""
LOAD = """
import numpy
from runner.specs.loader import Loader
project, path = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
suite, _ = Loader(project, "demo").suite_in(path)
told(lambda: suite.load(project))
"""
PLAN = """
from runner.plan.planner import make_plan
project, spec = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
told(lambda: make_plan(project, [spec], "demo"))
"""
PEERS = {
    "csv": ("pandas.read_csv", "import pandas\ntold(lambda: pandas.read_csv(sys.argv[1], keep_default_na=False))"),
    "jsonl": ("pandas.read_json", "import pandas\ntold(lambda: pandas.read_json(sys.argv[1], lines=True))"),
    "parquet": ("pyarrow to Python", "import pyarrow.parquet\ntold(lambda: pyarrow.parquet.read_table(sys.argv[1])"
                ".to_pydict())"),
}
"""What reads the same file into values that Python can use."""

SUITE = """kind = "suite"
type = "files"
folder = "data"
[tasks.reviews]
title = "Reviews"
kind = "classification"
labels = ["bad", "fine", "good"]
columns = ["text"]
label = "label"
train = "rows.{ending}"
dev = {dev}
"""
SPEC = """kind = "model"
suite = "suites/{ending}.toml"
[heads.reviews]
type = "linear"
loss = "cross_entropy"
"""

RATIOS = [
    *(Ratio(f"loading {name} / {PEERS[ending][0]}, {what}", f"mtrun loads {name}, {what}",
            f"{PEERS[ending][0]}, {name}, {what}", at_least=False)
      for name, ending in FORMATS.items() for what in ("seconds", "memory")),
    *(Ratio(f"plan of {name}: warm / cold", f"mtrun plan of {name}, warm", f"mtrun plan of {name}, cold", 0.1,
            at_least=False) for name in FORMATS),
]


def cases() -> list[Case]:
    """Return, for each format, loading by mtrun and by a peer, and a plan without and with the hash in the cache."""
    return [case for name, ending in FORMATS.items() for case in _cases(name, ending)]


def _cases(name: str, ending: str) -> Iterator[Case]:
    """Yield the figures of one format; that of memory is from the process whose seconds were taken just before."""
    peer, script = PEERS[ending]
    yield from _pair(f"mtrun loads {name}", lambda: _run(LOAD, _project(), _project() / f"specs/suites/{ending}.toml"),
                     1000.0)
    yield from _pair(f"{peer}, {name}", lambda: _run(script, _project() / f"data/rows.{ending}"))

    def plan(is_cold: bool) -> dict[str, float]:
        if is_cold:
            shutil.rmtree(_project() / "registry" / ".cache", ignore_errors=True)
        return _run(PLAN, _project(), _project() / f"specs/{ending}.toml")

    cold, memory = _pair(f"mtrun plan of {name}, cold", lambda: plan(True), 1000.0)
    yield Case(cold.name.removesuffix(", seconds"), cold.sample)
    yield memory
    yield Case(f"mtrun plan of {name}, warm", lambda: plan(False)["seconds"])


def _pair(name: str, run: Callable[[], dict[str, float]], goal: float | None = None) -> tuple[Case, Case]:
    """Return the cases of seconds and of megabytes, with its goal, of one run."""
    last: dict[str, float] = {}

    def seconds() -> float:
        last.update(run())
        return last["seconds"]

    return (Case(f"{name}, seconds", seconds),
            Case(f"{name}, memory", lambda: last["megabytes"] if last else run()["megabytes"], "MB", goal))


def _run(script: str, *arguments: Path) -> dict[str, float]:
    """Return the seconds and the peak megabytes of a process."""
    done = subprocess.run([sys.executable, "-c", CLOCK + script, *map(str, arguments)], cwd=ROOT, capture_output=True,
                          text=True, check=True)
    values: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return values


@cache
def _project() -> Path:
    """Make a project with the same rows in each format, once; it is removed at exit."""
    import numpy as np
    import pandas as pd

    folder = Path(tempfile.mkdtemp(prefix="mtrun-rows-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    scaffold.init(folder, {})
    (folder / "data").mkdir()
    random = np.random.default_rng(0)
    words = np.array([f"{first}{last}" for first in ("film", "plot", "cast", "end", "tune") for last in "aeiou"])
    texts = [" ".join(row) for row in words[random.integers(0, len(words), (ROWS, 12))]]
    rows = pd.DataFrame({"id": np.arange(ROWS), "text": texts,
                         "label": np.array(["bad", "fine", "good"])[random.integers(0, 3, ROWS)]})
    rows.to_csv(folder / "data" / "rows.csv", index=False)
    rows.to_json(folder / "data" / "rows.jsonl", orient="records", lines=True)
    rows.to_parquet(folder / "data" / "rows.parquet", index=False)
    for ending in FORMATS.values():
        (folder / "specs" / "suites" / f"{ending}.toml").write_text(SUITE.format(ending=ending, dev=DEV))
        (folder / "specs" / f"{ending}.toml").write_text(SPEC.format(ending=ending))
    return folder
