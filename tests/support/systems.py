"""A small trained project, shared by the tests that only read it: two leaves, an average, a rule and a route."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner
from projects import project

from runner.build.build import Build
from runner.build.events import Event
from runner.build.scheduler import Scheduler
from runner.cli.app import main
from runner.plan.planner import make_plan
from runner.worker.executors.inline import Inline

SPECS = {
    "pcgrad": 'kind = "model"\nextends = "sum.toml"\ncombiner = "pcgrad"\n[encoder]\npooling = "mean"\n',
    "mean": 'kind = "ensemble"\n[tree]\ntype = "average"\nmembers = ["sum.toml", "pcgrad.toml"]\n',
    "deep": 'kind = "ensemble"\n[tree]\ntype = "route"\n[tree.routes]\nsentiment = "sum.toml"\n'
            'paraphrase = { type = "best", by = "paraphrase", members = ["sum.toml", "pcgrad.toml"] }\n'
            'similarity = "mean.toml"\n',
}


def trained(root: Path) -> Path:
    """Make a project and build its trees; return its folder."""
    build(project(root, **SPECS), "deep")
    return root


def build(root: Path, *specs: str, settings: Sequence[str] = ()) -> list[Event]:
    """Build specs in this process and return the events."""
    plan = make_plan(root, [root / "specs" / f"{spec}.toml" for spec in specs], "demo", settings)
    scheduler = Scheduler(plan.registry, root, Inline(), jobs=1)
    return list(Build(plan, scheduler, root / "results").events())


@dataclass(frozen=True)
class Done:
    """What came of a command."""

    code: int
    out: str
    err: str


def mtrun(root: Path, *arguments: str, text: str = "") -> Done:
    """Run a command in a folder, in this process, with a text as its standard input."""
    code = 0
    with contextlib.chdir(root), CliRunner(env={"COLUMNS": "100"}).isolation(text) as (out, err, _):
        try:
            main(arguments)
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Done(code, out.getvalue().decode(), err.getvalue().decode())
