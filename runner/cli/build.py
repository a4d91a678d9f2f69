"""Commands that build: check, plan and build."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .completion import complete_executors
from .options import JSON, SPECS, common_project, load_plan, load_reserved_plan, plan_options

if TYPE_CHECKING:
    from ..plan.plan import Plan


@click.command()
@SPECS
@plan_options
@JSON
@click.option("-j", "--jobs", type=click.IntRange(1), help="Leaves trained at a time; default: as many as fit.")
@click.option("--executor", shell_complete=complete_executors, help="What starts the workers; default: the profile's "
              "executor, else local. Set its options with --set executor.KEY=VALUE.")
@click.option("--detach", is_flag=True,
              help="Exit once all leaves are queued; run the same build again to collect them.")
@click.option("-n", "--dry-run", is_flag=True, help="Print the plan and exit.")
@click.option("--force", "forced", multiple=True, metavar="NODE",
              help="Train this node again, or all leaves below it; can be repeated.")
@click.option("--rebuild-stale", is_flag=True, help="Train again the leaves that were trained with older code.")
@click.option("--fail-fast", is_flag=True, help="Start no further leaf once one has failed.")
@click.option("--retries", type=click.IntRange(0), default=1, show_default=True,
              help="How often a crashed worker is restarted.")
@click.option("-q", "--quiet", is_flag=True, help="Print failures only.")
def build(specs: tuple[Path, ...], profile: str, settings: tuple[str, ...], as_json: bool, jobs: int | None,
          executor: str | None, detach: bool, dry_run: bool, forced: tuple[str, ...], rebuild_stale: bool,
          fail_fast: bool, retries: int, quiet: bool) -> None:
    """Train the leaves that are missing and score all systems.

    Results are written to results/PROFILE; a finished run in the registry is not trained again.
    """
    from ..build.build import Build
    from ..build.publish import check_names
    from ..build.scheduler import Scheduler
    from ..worker import executor_choice
    from .views.events import choose_view, show_all

    settings_of_models, settings_of_executor = executor_choice.split_settings(settings)
    plan, reservation = load_reserved_plan(specs, profile, settings_of_models)
    plan.force(forced)
    if rebuild_stale:
        plan.rebuild_stale()
    if dry_run:
        show_plan(plan, as_json, jobs)
        return
    starter = executor_choice.choose(executor, settings_of_executor, plan.project, plan.profile)
    if detach and not starter.outlives:
        raise click.UsageError(f"`--detach` cannot be meant: the workers of `{starter.type}` end with the build")
    check_names(plan, plan.project / "results" / plan.profile)
    scheduler = Scheduler(plan.registry, plan.project, starter, jobs, retries, detach)
    build = Build(plan, scheduler, plan.project / "results", fail_fast)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, scheduler.interrupt)
    with choose_view(as_json, quiet) as view:
        done = show_all(build.events(), view)
    if done.values.get("detached"):
        reservation.detach()
    elif not done.values["failed"]:
        reservation.clear_detached()
    if not as_json:
        for path in build.written:
            click.echo(os.path.relpath(path))
    sys.exit(1 if done.values["failed"] else 0)


@click.command("plan")
@SPECS
@plan_options
@JSON
@click.option("-j", "--jobs", type=click.IntRange(1), help="Leaves trained at a time, for the estimate of the time.")
@click.option("--graph", type=click.Choice(["mermaid", "dot", "text"]),
              help="Print the plan as a graph in this format, each node once.")
def plan_command(specs: tuple[Path, ...], profile: str, settings: tuple[str, ...], as_json: bool, jobs: int | None,
                 graph: str | None) -> None:
    """Show what a build would train, why, and at what cost."""
    plan = load_plan(specs, profile, settings)
    if graph:
        from .views.graph import STYLES

        click.echo(STYLES[graph](plan))
    else:
        show_plan(plan, as_json, jobs)


@click.command()
@SPECS
@plan_options
@click.option("--resolved", is_flag=True, help="Print each spec with all its values, and where each was set.")
def check(specs: tuple[Path, ...], profile: str, settings: tuple[str, ...], resolved: bool) -> None:
    """Check specs and their data without training."""
    from ..specs import render
    from ..specs.loader import Loader

    loaded = Loader(common_project(specs), profile, settings).load_all(specs)
    if resolved:
        click.echo(render.resolved(node for nodes in loaded for node in nodes))
    else:
        load_plan(specs, profile, settings)  # reads the data too
        click.echo(render.summary(loaded))


def default_jobs(plan: Plan) -> int:
    """Return how many leaves fit on this machine: its cores over the threads of the largest leaf."""
    from ..specs.spec import Leaf

    resources = [node.spec.model.resources for node in plan.nodes.values() if isinstance(node.spec, Leaf)]
    largest = max((each.threads * each.processes for each in resources), default=1)
    return max(1, len(os.sched_getaffinity(0)) // largest)


def show_plan(plan: Plan, as_json: bool, jobs: int | None) -> None:
    """Print a plan with its forecast of time and disk space."""
    from ..plan.forecast import forecast
    from .views.plan import json_lines, text

    costs = forecast(plan, jobs or default_jobs(plan))
    click.echo(json_lines(plan, costs) if as_json else text(plan, costs))
