"""The commands that look after a registry: ls, show, logs, verify, rm, gc."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import completion
from .options import JSON

if TYPE_CHECKING:
    from ..registry.registry import Registry, Run
    from ..registry.reservations import StoredReservations


@click.command()
@click.argument("old", metavar="RUN", shell_complete=completion.runs)
@click.argument("new", metavar="RUN", shell_complete=completion.runs)
@JSON
def diff(old: str, new: str, as_json: bool) -> None:
    """Show what differs between two runs, named by id, beginning of an id, or name."""
    from ..project import project_of
    from ..registry.registry import Registry
    from .views import diff as comparison

    registry = Registry(project_of(Path("spec.toml")) / "registry")
    found = comparison.compared(comparison.named(registry, old), comparison.named(registry, new))
    click.echo(comparison.line(found) if as_json else comparison.text(found))

RUN = click.argument("word", metavar="RUN", shell_complete=completion.runs)

JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line on standard output.")


def registry_here() -> Registry:
    """Return the registry of the project of the working folder."""
    from ..project import project_here
    from ..registry.registry import Registry

    return Registry(project_here() / "registry")


@click.command("ls")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@click.option("--sort", "key", type=click.Choice(["name", "id", "overall", "seconds", "size", "time"]), default="name",
              show_default=True)


@click.option("-r", "--reverse", is_flag=True, help="The greatest first.")
@JSON
def list_runs(patterns: tuple[str, ...], key: str, reverse: bool, as_json: bool) -> None:
    """List finished runs whose name, or the beginning of whose id, is like a PATTERN, such as `sum-*`."""
    import gc

    from .views.runs import Inventory, runs_json, runs_text

    gc.disable()  # ten thousand manifests are a million objects without a cycle
    try:
        found = Inventory.of(registry_here(), patterns, key)
    finally:
        gc.enable()
    runs = found.runs[::-1] if reverse else found.runs
    if runs or not as_json:
        none = f"no run is called like {' or '.join(patterns)}"
        click.echo(runs_json(runs) if as_json else runs_text(runs) if runs or not patterns else none)
    for note in found.notes():
        click.echo(note, err=True)


@click.command()
@RUN
@JSON
def show(word: str, as_json: bool) -> None:
    """Show all that is known of a run, named by id, beginning of an id, or name."""
    from ..errors import clean
    from .views.diff import named
    from .views.runs import described

    run = named(registry_here(), word)
    lines = [json.dumps({"v": 1, **run.manifest})] if as_json else map(clean, described(run))
    for line in lines:
        click.echo(line)


@click.command()
@RUN
@click.option("-f", "--follow", is_flag=True, help="Go on until the run is finished or its worker ends.")
def logs(word: str, follow: bool) -> None:
    """Print the log of a run, finished or in training."""
    from ..errors import clean
    from .views.diff import named
    from .views.runs import in_progress, log

    registry = registry_here()
    working = [one.id for one in in_progress(registry) if word and (one.id.startswith(word) or one.name == word)]
    id = working[0] if len(working) == 1 else named(registry, word).id
    for text in log(registry, id, follow):
        click.echo("\n".join(map(clean, text.split("\n"))), nl=False)


@click.command()
@click.argument("words", nargs=-1, metavar="[RUN]...", shell_complete=completion.runs)
@click.option("--set-aside", is_flag=True, help="Move damaged runs to .damaged/, so that a build trains them again.")
def verify(words: tuple[str, ...], set_aside: bool) -> None:
    """Read every byte of finished runs and compare it with what was written; exit code 3 on damage."""
    from ..errors import RegistryError, StorageError, clean
    from .views.diff import named

    registry = registry_here()
    there = registry.ids()
    ids = [word if word in there else named(registry, word).id for word in words] or there
    damaged = unread = 0
    for id in ids:
        try:
            registry.check(id)
            continue
        except RegistryError as error:
            damaged, problems = damaged + 1, error.problems
            if set_aside:
                _set_aside(registry, id)
        except StorageError as error:
            unread, problems = unread + 1, error.problems
        for problem in problems:
            click.echo(clean(f"{id}  {problem.message}"))
    counts = f"{damaged:,} damaged" + (f", {unread:,} that cannot be read" if unread else "")
    click.echo(f"{len(ids):,} run{'s' * (len(ids) != 1)}, {counts}", err=True)
    if damaged and not set_aside:
        click.echo("`mtrun verify --set-aside` moves them away, so that the next build trains them again", err=True)
    if unread:
        click.echo("what cannot be read is not known to be damaged, and is left where it is", err=True)
    sys.exit(3 if damaged else 1 if unread else 0)


def _set_aside(registry: Registry, id: str) -> None:
    """Move a damaged run away, unless somebody works on it or a sound one has taken its place."""
    from ..errors import RegistryError, StorageError

    try:
        with registry.claim(id) as lease:
            if lease is not None:
                try:
                    registry.check(id)
                except RegistryError:
                    registry.set_aside(id)
    except StorageError as error:
        click.echo(error.render(), err=True)


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="RUN...", shell_complete=completion.runs)
@click.option("--weights", is_flag=True, help="Remove the weights only; ensembles and tables need predictions alone.")
@click.option("--force", is_flag=True, help="Remove a run that a published result refers to, too.")
def rm(words: tuple[str, ...], weights: bool, force: bool) -> None:
    """Remove runs, named by id, beginning of an id, name, or pattern such as `sum-*`."""
    from ..errors import MtrunError, UsageError, clean
    from ..files import remove
    from ..registry.registry import WEIGHTS
    from ..registry.reservations import removal

    registry = registry_here()
    with removal(registry) as reservations:
        runs = list(_runs(registry, words))
        if not (force or weights):
            _check_published(registry, runs)
        _check_needed(reservations, runs, force)
        taken, refused = dict[str, Path](), list[str]()
        for run in runs:
            try:
                taken[run.id] = _taken(registry, run, weights)
            except MtrunError as error:
                refused.append(str(error))
    for run in runs:
        if run.id in taken:
            remove(taken[run.id])
            size = run.manifest["files"].get(WEIGHTS, {"size": 0})["size"] if weights else run.size()
            click.echo(clean(f"{run.id}  {run.manifest['name']}: {size / 1e6:,.1f} MB removed"))
    if refused:
        raise UsageError(*refused)


def _taken(registry: Registry, run: Run, weights: bool) -> Path:
    """Take a run, or its weights, away; return where files are still to be removed. Raise UsageError, StorageError."""
    from ..errors import UsageError
    from ..registry.registry import WEIGHTS

    with registry.claim(run.id) as lease:
        if lease is None:
            raise UsageError(f"the run {run.id} is in training")
        if weights:
            registry.drop_weights(run)
            return run.folder / WEIGHTS
        return registry.discard(run.folder, run.id)


def _runs(registry: Registry, words: Sequence[str]) -> Iterator[Run]:
    """Yield the runs that words name, each once. Raise UsageError for a word that names none."""
    from .views.diff import named
    from .views.runs import Inventory

    seen = set()
    for word in words:
        many = Inventory.of(registry, [word]).runs if set(word) & set("*?[") else []
        for run in many or [named(registry, word)]:
            if run.id not in seen:
                seen.add(run.id)
                yield run


def _check_needed(reservations: StoredReservations, runs: Sequence[Run], force: bool) -> None:
    """Raise UsageError where a running command needs a run; what was left to an engine can be removed by force."""
    from ..errors import Problem, UsageError

    for run in runs:
        reservation = reservations.covering(run.id)
        if reservation and not (force and reservation.is_detached):
            hint = "`--force` removes it all the same" if reservation.is_detached else "wait for its end, or stop it"
            raise UsageError(Problem(f"the run {run.id} is needed by {reservation}", hint=hint))


def _check_published(registry: Registry, runs: Sequence[Run]) -> None:
    """Raise UsageError where a published result refers to a run, or cannot be read."""
    from ..build.retention import Retention
    from ..errors import UsageError

    results = Retention()
    results.add_results(registry.root.parent)
    for path, why in results.unread.items():
        raise UsageError(f"{path} cannot be read ({why}), and may refer to the runs; `--force` removes these anyway")
    if needed := [f"{run.manifest['name']} ({run.id})" for run in runs if run.id in results.ids]:
        raise UsageError(f"published results refer to {', '.join(needed)}; `--force` removes the runs all the same")


@click.command()
@click.option("-n", "--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
def gc(dry_run: bool) -> None:
    """Remove what nothing refers to: runs, work of builds that died, damaged runs that were set aside.

    Never what a running command needs, nor a run that a spec under any profile or a published result refers to.
    """
    from ..build.gc import Scan, delete, existing_names, move_away
    from ..build.retention import Retention
    from ..errors import StorageError, clean
    from ..project import project_here
    from ..registry.reservations import read_reservations, removal

    registry, project, total, failed = registry_here(), project_here(), 0, list[str]()
    known = existing_names(registry)
    retention = Retention.of(project)
    with nullcontext(read_reservations(registry)) if dry_run else removal(registry) as reservations:
        retention.add_results(project)  # those too that came meanwhile
        scan, taken = Scan(registry, retention, reservations, known), []
        for one in list(scan.garbage()):
            try:
                taken.append((one, one.path if dry_run else move_away(registry, one)))
            except StorageError as error:
                failed.append(str(error))
    for note in (*retention.notes, *reservations.notes, *(f"{what}; it is kept" for what in scan.unread)):
        click.echo(clean(note), err=True)
    for one, place in taken:
        try:
            if place is None:
                continue
            if not dry_run:
                delete(registry, one, place)
            total += one.size
            click.echo(clean(f"{os.path.relpath(one.path)}  {one.size:,} bytes: {one.why}"))
        except StorageError as error:
            failed.append(str(error))
    click.echo(f"{total:,} bytes {'would be' if dry_run else 'were'} removed", err=True)
    if failed:
        raise StorageError(*failed)



COMMANDS = (list_runs, show, logs, verify, rm, gc, diff,)
