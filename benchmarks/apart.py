"""Contenders in processes of their own, so that none leaves its memory, threads or settings to another.

`python -m benchmarks.apart FILE NAME` measures the contender NAME of a file once for each line that it reads.
"""

from __future__ import annotations

import atexit
import importlib
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache

from . import Case
from .workload import ROOT


def apart(file: str, contender: Case) -> Case:
    """Return a case that is measured by a process of its own, which stays for all rounds."""
    return replace(contender, sample=_asked(file, contender.name))


def _asked(file: str, name: str) -> Callable[[], float]:
    @cache
    def begun() -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-m", "benchmarks.apart", file, name], cwd=ROOT, text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        atexit.register(process.kill)
        return process

    def sample() -> float:
        process = begun()
        assert process.stdin and process.stdout
        print(file=process.stdin, flush=True)
        if not (said := process.stdout.readline()):
            raise RuntimeError(f"{name} ended with {process.wait()}: python -m benchmarks.apart {file} '{name}'")
        return float(said)

    return sample


def main(file: str, name: str) -> None:
    """Measure a contender whenever a line comes in."""
    warnings.filterwarnings("ignore")
    (contender,) = (case for case in importlib.import_module(f"benchmarks.{file}").contenders() if case.name == name)
    output, sys.stdout = sys.stdout, sys.stderr  # what a peer prints is no figure
    for _ in sys.stdin:
        print(contender.sample(), file=output, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
