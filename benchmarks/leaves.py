"""Leaves per hour of a whole build: two workers of one thread each against one worker of two threads."""

from __future__ import annotations

import atexit
import csv
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from runner import machine
from runner.tasks.data import Examples

from . import Case, Ratio
from .startup import MTRUN
from .workload import ROOT, made_up

LEAVES, STEPS = 4, 12
FILES = {"sentiment": "ids-sst", "paraphrase": "quora", "similarity": "sts"}
COLUMNS = {"sentiment": ("sentence", "sentiment"), "paraphrase": ("sentence1", "sentence2", "is_duplicate"),
           "similarity": ("sentence1", "sentence2", "similarity")}
ONE, TWO = "4 leaves, -j 1, 2 threads", "4 leaves, -j 2, 1 thread each"
RATIOS = [Ratio("leaves per hour: -j 2 / -j 1", ONE, TWO, 1.1, 1.25)]


def cases() -> list[Case]:
    """Return builds of four seeds of MiniLM-L6 on a 24th of the course's rows, none on a machine of one core."""
    if (os.cpu_count() or 1) < 2:
        return []
    return [Case(ONE, _built(1, 2)), Case(TWO, _built(2, 1))]


def _built(jobs: int, threads: int) -> Callable[[], float]:
    precision = "bf16" if machine.computes_bf16("auto")[0] else "fp32"
    settings = [f"resources.threads={threads}", "train.epochs=1", f"train.steps={STEPS}", "train.batch_size=8",
                f"train.precision={precision}"]
    return lambda: built(LEAVES, jobs, settings)


def built(leaves: int, jobs: int, settings: Sequence[str]) -> float:
    """Return the seconds of a build that trains so many seeds anew, `jobs` at a time."""
    folder = _project(leaves)
    for run in (folder / "registry").glob("[0-9a-f]*"):
        shutil.rmtree(run)  # the runs; the cache stays
    command = [MTRUN, "build", "specs/seeds.toml", "--profile", "minilm", "-j", str(jobs),
               *(word for s in settings for word in ("--set", s))]
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | {"MTRUN_DATA": str(folder)}
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   check=True)
    return time.perf_counter() - started


@cache
def _project(leaves: int) -> Path:
    """Return a project with made-up data in the form of the course's files, and a sweep of so many seeds."""
    folder = Path(tempfile.mkdtemp(prefix="mtrun-benchmark-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shutil.copytree(ROOT / "specs", folder / "specs")
    (folder / "specs" / "seeds.toml").write_text(
        f'kind = "model"\nextends = "base.toml"\n\n[sweep]\n"train.seed" = {list(range(leaves))}\n')
    suite = folder / "specs" / "suites" / "cs224n.toml"
    suite.write_text("".join(line for line in suite.read_text().splitlines(True) if not line.startswith("test = ")))
    for task, by_split in made_up(1 / 24).splits.items():
        for split, part in by_split.items():
            _write(folder / f"{FILES[task]}-{split}.csv", COLUMNS[task], part, 1 if split == "train" else 16)
    return folder


def _write(path: Path, columns: tuple[str, ...], examples: Examples, every: int) -> None:
    """Write one row in `every` as a file of the course."""
    assert examples.labels is not None
    sides = [column for column in (examples.first, examples.second) if column]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["id", *columns])
        writer.writerows(list(zip(examples.ids, *sides, examples.labels.tolist(), strict=True))[::every])
