"""How time and memory grow with the data: a small encoder on 1, 4 and 16 times as many examples."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from . import Case, Ratio
from .workload import ROOT

SCRIPT = """
import json, pathlib, sys, tempfile, time, torch
from benchmarks import workload
from runner.training import memory
from runner.training.trainer import TrainerCallback
from runner.worker.worker import trainer_of
torch.set_num_threads(1)
memory.keep_freed()
data = workload.made_up(float(sys.argv[1]))
model = workload.small()
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
def peak():
    return next(int(x.split()[1]) for x in open("/proc/self/status") if x.startswith("VmHWM")) / 1e3
before, started = peak(), time.process_time()
with tempfile.TemporaryDirectory() as folder:
    trainer = trainer_of(model, data, workload.ROOT, pathlib.Path(folder))
prepared = time.process_time()
tokens = 0
for step in range(trainer.batches.steps_per_epoch):
    tokens += len(trainer.batches.batch(step).packed.tokens)
    trainer._step(TrainerCallback())
trained = time.process_time()
print(json.dumps({"examples": sum(len(s["train"]) for s in data.splits.values()), "tokens": tokens,
                  "prepare": prepared - started, "train": trained - prepared, "memory": peak() - before}))
"""
TIMES = (0.25, 1, 4)
"""Of as many examples as the course has."""
RATIOS = [
    Ratio("seconds a token of an epoch, 16 times the data / once", "an epoch, 4 x", "an epoch, 0.25 x", 1.1,
          at_least=False),
    Ratio("seconds a sentence to prepare, 16 times / once", "preparing, 4 x", "preparing, 0.25 x", 1.1, at_least=False),
]


def cases() -> list[Case]:
    """Return, for each size of the data, seconds and memory; each measurement is a process of its own."""
    measured: dict[float, dict[str, Any]] = {}

    def epoch(times: float) -> float:
        measured[times] = _run(times)
        return float(measured[times]["train"] / measured[times]["tokens"] * 1e6)

    found = []
    for times in TIMES:
        found += [
            Case(f"an epoch, {times:g} x", lambda t=times: epoch(t), "us a token"),  # type: ignore[misc]
            Case(f"preparing, {times:g} x", lambda t=times: _each(measured[t], "prepare", 1e6),  # type: ignore[misc]
                 "us an example"),
            Case(f"memory, {times:g} x", lambda t=times: measured[t]["memory"], "MB"),  # type: ignore[misc]
        ]
    return found


def _each(values: dict[str, Any], name: str, unit: float) -> float:
    return float(values[name] / values["examples"] * unit)


def _run(times: float) -> dict[str, Any]:
    """Return what a process measured for so many times the course's examples."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(times)], cwd=ROOT, capture_output=True, text=True,
                          check=True)
    values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return values
