"""How much memory a training step needs at its peak, each in a process of its own: ours against the course loop."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from . import Case, Ratio
from .workload import ROOT

SCRIPT = """
import copy, gc, pathlib, sys, torch
from benchmarks import workload
from runner.training import memory
from runner.training.trainer import TrainerCallback
kind, combiner, precision, *settings = sys.argv[1:]
torch.set_num_threads(1)
ours = workload.trainer(workload.model(combiner, precision, True, *settings))
batches = [workload.rows(ours, step) for step in range(6)]
if kind == "course":
    from benchmarks.peers import Course, DirectPCGrad  # transformers needs memory, too

    heads = {name: copy.deepcopy(head) for name, head in ours.network.heads.items()}
    del ours
    peer = (Course if combiner == "sum" else DirectPCGrad)(workload.weights(), heads, 2e-5)
    steps = [lambda batch=batch: peer.step(batch) for batch in batches]
else:
    memory.keep_freed()
    steps = [lambda: ours._step(TrainerCallback())] * len(batches)
gc.collect()
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
for step in steps:
    step()
(peak,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) / 1e3)
"""
RATIOS = [Ratio(f"{combiner}: mtrun {precision} / course loop", f"mtrun, {combiner} {precision}",
                f"course loop, {combiner}", 1.0, at_least=False)
          for combiner in ("sum", "pcgrad") for precision in ("fp32", "bf16")]


def cases() -> list[Case]:
    """Return the processes' peaks while they do six steps, Python, torch, weights and data included, in megabytes."""
    ours = [Case(f"mtrun, {c} {p}", peak("mtrun", c, p), "MB") for c in ("sum", "pcgrad") for p in ("fp32", "bf16")]
    return [*ours, *(Case(f"course loop, {c}", peak("course", c, "fp32"), "MB") for c in ("sum", "pcgrad"))]


def peak(*arguments: str) -> Callable[[], float]:
    """Return what measures the peak megabytes of six steps in a process; `arguments` are those of the script."""
    def sample() -> float:
        command = [sys.executable, "-c", SCRIPT, *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return float(done.stdout.split()[-1])

    return sample
