"""The command line: the only room that prints and exits.

What a command needs is imported when it runs, so that `--help` and completion stay quick.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from . import completion, gallery, upkeep, usage
from .options import JSON, SPECS, one_project, planned, planning, reserving

if TYPE_CHECKING:
    from .plan import Plan


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mtrun")
def cli() -> None:
    """Declarative runs of multi-task BERT, and ensembles of them."""


@cli.command()
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
    from . import engines
    from .build import Build
    from .console import last, view
    from .pool import Pool
    from .publication import check_names
    from .renewal import renew

    settings_of_models, settings_of_engine = engines.divided(settings)
    plan, mine = reserving(specs, profile, settings_of_models)
    renew(plan, forced, rebuild_stale)
    if dry_run:
        show_plan(plan, as_json, jobs)
        return
    starter = engines.named(executor, settings_of_engine, plan.project, profile)
    if detach and not starter.outlives:
        raise click.UsageError(f"`--detach` cannot be meant: the workers of `{starter.type}` end with the build")
    check_names(plan, plan.project / "results" / profile)
    pool = Pool(plan.registry, plan.project, starter, jobs, retries, detach)
    work = Build(plan, pool, plan.project / "results", fail_fast)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pool.interrupt)
    with view(as_json, quiet) as shown:
        done = last(work.events(), shown)
    if done.values.get("detached"):
        mine.leave()
    elif not done.values["failed"]:
        mine.finish()
    if not as_json:
        for path in work.written:
            click.echo(os.path.relpath(path))
    sys.exit(1 if done.values["failed"] else 0)


@cli.command("plan")
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
        from .graphs import STYLES

        click.echo(STYLES[graph](plan))
    else:
        show_plan(plan, as_json, jobs)


@cli.command()
@click.argument("old", metavar="RUN", shell_complete=completion.runs)
@click.argument("new", metavar="RUN", shell_complete=completion.runs)
@JSON
def diff(old: str, new: str, as_json: bool) -> None:
    """Show what differs between two runs, named by id, beginning of an id, or name."""
    from . import comparison
    from .loader import project_of
    from .registry import Registry

    registry = Registry(project_of(Path("spec.toml")) / "registry")
    found = comparison.compared(comparison.named(registry, old), comparison.named(registry, new))
    click.echo(comparison.line(found) if as_json else comparison.text(found))


@cli.command()
@SPECS
@planning
@click.option("--resolved", is_flag=True, help="Show each spec with all its values, and where each was set.")
def check(specs: tuple[Path, ...], profile: str, settings: tuple[str, ...], resolved: bool) -> None:
    """Check specs and data without starting anything."""
    from . import checked
    from .loader import Loader

    loaded = Loader(one_project(specs), profile, settings).load_all(specs)
    if resolved:
        click.echo(checked.resolved(node for nodes in loaded for node in nodes))
    else:
        planned(specs, profile, settings)  # reads the data too
        click.echo(checked.summary(loaded))


@cli.command()
@click.argument("results", type=click.Path(path_type=Path), default=Path("results"))
@click.option("--format", "style", default="md", show_default=True,
              type=click.Choice(["md", "csv", "json", "latex", "html", "plain"]))
@click.option("--split", default="dev", show_default=True, type=click.Choice(["dev", "test"]))
@click.option("--group", default="*", metavar="NAMES", help="Systems to show, such as `ensemble? sum-lr@*`.")
@click.option("--columns", default="", metavar="KEYS", help="Columns, such as `name,overall`; `+what` adds one.")
@click.option("--sort", default="overall", show_default=True, metavar="KEY", help="Column to sort by.")
def table(results: Path, style: str, split: str, group: str, columns: str, sort: str) -> None:
    """Print the leaderboard of each profile, and bring RESULTS/PROFILE/leaderboard.md up to date."""
    from . import leaderboards
    from .errors import RegistryError, clean
    from .references import PUBLISHED
    from .result_folder import read

    found = read(results)
    made = leaderboards.tables(found, style, split, group, columns, sort)
    click.echo(made.text, nl=False)
    leaderboards.publish([one for one in found if one.path.parent != results / PUBLISHED])
    if found[0].path.parent == results / PUBLISHED:
        click.echo("nothing is built here yet: these are the results that the project publishes", err=True)
    for note in made.notes:
        click.echo(clean(note), err=True)
    if made.problems:
        raise RegistryError(*made.problems)


@cli.command()
@click.argument("spec", type=click.Path(path_type=Path), shell_complete=completion.specs)
@planning
@JSON
@click.option("--split", default="dev", show_default=True, type=click.Choice(["dev", "test"]))
@click.option("--prune", "points", type=click.FloatRange(0), metavar="POINTS",
              help="Propose the smallest tree at most so many hundredths of overall below the whole.")
def members(spec: Path, profile: str, settings: tuple[str, ...], as_json: bool, split: str,
            points: float | None) -> None:
    """Show what each member of an ensemble is worth."""
    from . import appraisal
    from .coalitions import grove_of
    from .worth import appraise

    plan, _ = reserving([spec], profile, settings)
    found = appraise(grove_of(plan, split), points is not None)
    click.echo(appraisal.line(found, points) if as_json else appraisal.text(found, points))


for command in (*upkeep.COMMANDS, *usage.COMMANDS, *gallery.COMMANDS):
    cli.add_command(command)


@cli.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Make a project in DIR that builds at once; nothing is overwritten."""
    from .scaffold import init
    from .schema import Schemas

    init(folder, Schemas().files())
    click.echo(f"made {folder}: see {folder / 'README.md'}, then `cd {folder}` and `mtrun build specs/ensemble.toml`")


@cli.command()
@click.argument("family", type=click.Choice(["head", "loss", "combiner", "optimizer", "schedule", "regularizer",
                                             "encoder", "ensemble", "suite", "executor"]))
@click.argument("name")
def new(family: str, name: str) -> None:
    """Write a documented part of your own into parts/."""
    from .loader import project_of
    from .scaffold import new

    click.echo(os.path.relpath(new(family, name, project_of(Path("spec.toml")))))
    click.echo("`mtrun schema --write` tells your editor about it", err=True)


@cli.command()
@click.argument("kind", required=False, type=click.Choice(["model", "ensemble", "soup", "suite", "profile"]))
@click.option("--write", is_flag=True, help="Write all of them, and the generated half of docs/specs.md.")
def schema(kind: str | None, write: bool) -> None:
    """Print the JSON Schema of a KIND of file, or write all of them for editors."""
    from .loader import project_of
    from .reference import written
    from .schema import FOLDER, Schemas

    project = project_of(Path("spec.toml"))
    schemas = Schemas(project)
    if kind:
        click.echo(schemas.files()[FOLDER / f"{kind}.json"], nl=False)
    elif not write:
        raise click.UsageError("name a kind of file, or pass --write")
    for path in written(project, schemas) if write else ():
        click.echo(os.path.relpath(path))


def default_jobs(plan: Plan) -> int:
    """Return how many leaves fit on this machine: its cores over the threads of the largest leaf."""
    from .spec import Leaf

    asked = [n.node.model.resources for n in plan.nodes.values() if isinstance(n.node, Leaf)]
    return max(1, len(os.sched_getaffinity(0)) // max((one.threads * one.processes for one in asked), default=1))


def show_plan(plan: Plan, as_json: bool, jobs: int | None) -> None:
    """Print a plan."""
    from . import outline
    from .forecast import forecast

    ahead = forecast(plan, jobs or default_jobs(plan))
    click.echo(outline.lines(plan, ahead) if as_json else outline.text(plan, ahead))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with one of mtrun's codes."""
    from .errors import MtrunError, Stopped
    from .files import refusal

    try:
        cli.main(args=list(arguments) if arguments is not None else None, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Stopped as error:
        click.echo(error.render().removeprefix("error: "), err=True)
        sys.exit(error.exit_code)
    except MtrunError as error:
        click.echo(error.render(), err=True)
        sys.exit(error.exit_code)
    except Exception as error:
        if not (said := refusal(error)):
            _bug(error)
        click.echo(said.render(), err=True)
        sys.exit(said.exit_code)
    sys.exit(0)


def _bug(error: Exception) -> NoReturn:
    """Say that this is our fault; the traceback goes into a file, not to the user."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="mtrun-bug-", suffix=".txt", delete=False) as file:
        traceback.print_exception(error, file=file)
    click.echo(f"error: a bug in mtrun: {type(error).__name__}: {error}\n --> {file.name} holds the details", err=True)
    sys.exit(4)
