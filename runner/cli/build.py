"""runner/cli/build.py"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import completion
from .options import JSON, SPECS, one_project, planned, planning, reserving

if TYPE_CHECKING:
    from ..plan.plan import Plan


@click.command()
@SPECS
@planning
@JSON
@click.option("-j", "--jobs", type=click.IntRange(1), help="Leaves trained at a time; default: as many as fit.")
@click.option("--executor", shell_complete=completion.executors, help="How workers are started; default: what the "
              "profile says, else local. Its own settings are --set executor.KEY=VALUE.")


@click.option("--detach", is_flag=True, help="Leave once all leaves are queued; the same build finds them again.")
@click.option("-n", "--dry-run", is_flag=True, help="Show the plan only.")
@click.option("--force", "forced", multiple=True, metavar="NODE", help="Train this node again, or all leaves below it.")
@click.option("--rebuild-stale", is_flag=True, help="Train again what was trained with older code.")
@click.option("--fail-fast", is_flag=True, help="Start nothing more once a leaf has failed.")
@click.option("--retries", type=click.IntRange(0), default=1, show_default=True, help="Restarts of a crashed worker.")
@click.option("-q", "--quiet", is_flag=True, help="Print failures only.")
def build(specs: tuple[Path, ...], profile: str, settings: tuple[str, ...], as_json: bool, jobs: int | None,
          executor: str | None, detach: bool, dry_run: bool, forced: tuple[str, ...], rebuild_stale: bool,
          fail_fast: bool, retries: int, quiet: bool) -> None:
    """Train what is missing, evaluate the trees, write results."""
    from ..build.build import Build
    from ..build.publish import check_names
    from ..build.scheduler import Scheduler
    from ..worker import executor_choice
    from .views.events import last, view

    settings_of_models, settings_of_engine = executor_choice.split_settings(settings)
    plan, mine = reserving(specs, profile, settings_of_models)
    plan.force(forced)
    if rebuild_stale:
        plan.rebuild_stale()
    if dry_run:
        show_plan(plan, as_json, jobs)
        return
    starter = executor_choice.choose(executor, settings_of_engine, plan.project, profile)
    if detach and not starter.outlives:
        raise click.UsageError(f"`--detach` cannot be meant: the workers of `{starter.type}` end with the build")
    check_names(plan, plan.project / "results" / profile)
    pool = Scheduler(plan.registry, plan.project, starter, jobs, retries, detach)
    work = Build(plan, pool, plan.project / "results", fail_fast)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pool.interrupt)
    with view(as_json, quiet) as shown:
        done = last(work.events(), shown)
    if done.values.get("detached"):
        mine.detach()
    elif not done.values["failed"]:
        mine.clear_detached()
    if not as_json:
        for path in work.written:
            click.echo(os.path.relpath(path))
    sys.exit(1 if done.values["failed"] else 0)


@click.command("plan")
@SPECS
@planning
@JSON
@click.option("-j", "--jobs", type=click.IntRange(1), help="Leaves trained at a time, for the time in all.")
@click.option("--graph", type=click.Choice(["mermaid", "dot", "text"]), help="Draw each node once, in this language.")
def plan_command(specs: tuple[Path, ...], profile: str, settings: tuple[str, ...], as_json: bool, jobs: int | None,
                 graph: str | None) -> None:
    """Show what a build would do, why, and what it would cost."""
    plan = planned(specs, profile, settings)
    if graph:
        from .views.graph import STYLES

        click.echo(STYLES[graph](plan))
    else:
        show_plan(plan, as_json, jobs)


@click.command()
@SPECS
@planning
@click.option("--resolved", is_flag=True, help="Show each spec with all its values, and where each was set.")
def check(specs: tuple[Path, ...], profile: str, settings: tuple[str, ...], resolved: bool) -> None:
    """Check specs and data without starting anything."""
    from ..specs import render
    from ..specs.loader import Loader

    loaded = Loader(one_project(specs), profile, settings).load_all(specs)
    if resolved:
        click.echo(render.resolved(node for nodes in loaded for node in nodes))
    else:
        planned(specs, profile, settings)  # reads the data too
        click.echo(render.summary(loaded))


def default_jobs(plan: Plan) -> int:
    """Return how many leaves fit on this machine: its cores over the threads of the largest leaf."""
    from ..specs.spec import Leaf

    asked = [n.spec.model.resources for n in plan.nodes.values() if isinstance(n.spec, Leaf)]
    return max(1, len(os.sched_getaffinity(0)) // max((one.threads * one.processes for one in asked), default=1))


def show_plan(plan: Plan, as_json: bool, jobs: int | None) -> None:
    """Print a plan."""
    from ..plan.forecast import forecast
    from .views import plan as outline

    ahead = forecast(plan, jobs or default_jobs(plan))
    click.echo(outline.lines(plan, ahead) if as_json else outline.text(plan, ahead))

COMMANDS = (build, plan_command, check,)
