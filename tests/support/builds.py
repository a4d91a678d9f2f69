"""What tests of build share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from runner.build.build import Build
from runner.build.events import Event
from runner.build.scheduler import Scheduler
from runner.plan.planner import make_plan
from runner.registry.registry import Registry
from runner.registry.reservations import reserved
from runner.worker.executors.inline import Inline

PCGRAD = 'kind = "model"\nextends = "sum.toml"\ncombiner = "pcgrad"\n'


TREE = ('kind = "ensemble"\n[tree]\ntype = "average"\nmembers = ["sum.toml", "pcgrad.toml", '
        '{ type = "best", by = "sentiment", members = ["sum.toml", "pcgrad.toml"] }]\n')


BROKEN = 'kind = "model"\nextends = "sum.toml"\n[optimizer]\nlr = 1e30\n'


def built(root: Path, *specs: str, settings: Sequence[str] = ()) -> list[Event]:
    """Build specs in this process and return the events."""
    with reserved(Registry(root / "registry")) as reservation:
        plan = make_plan(root, [root / "specs" / f"{spec}.toml" for spec in specs], "demo", settings)
        reservation.hold(plan.nodes)
        scheduler = Scheduler(plan.registry, root, Inline(), jobs=1)
        return list(Build(plan, scheduler, root / "results").events())


def names(events: Sequence[Event], kind: str) -> list[str]:
    return [e.name for e in events if e.event == kind]


def mtrun(root: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", "from runner.cli import main; main()", *arguments], cwd=root,
                            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
