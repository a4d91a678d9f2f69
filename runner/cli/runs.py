"""Commands on the runs of a registry: diff, ls, show, logs, verify, rm and gc."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .completion import complete_runs
from .options import JSON

if TYPE_CHECKING:
    from ..registry.registry import Registry, Run
    from ..registry.reservations import StoredReservations

RUN = click.argument("word", metavar="RUN", shell_complete=complete_runs)


def registry_here() -> Registry:
    """Return the registry of the project of the working folder."""
    from ..project import Project
    from ..registry.registry import Registry

    return Registry(Project.here().registry)


@click.command()
@click.argument("old", metavar="RUN", shell_complete=complete_runs)
@click.argument("new", metavar="RUN", shell_complete=complete_runs)
@JSON
def diff(old: str, new: str, as_json: bool) -> None:
    """Compare the fields, code and scores of two runs.

    A RUN is an id, the beginning of an id, or a name.
    """
    from ..project import Project
    from ..registry.registry import Registry
    from .views.diff import compare, find_run, json_line, text

    registry = Registry(Project.here().registry)
    comparison = compare(find_run(registry, old), find_run(registry, new))
    click.echo(json_line(comparison) if as_json else text(comparison))


@click.command("ls")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@click.option("--sort", "key", type=click.Choice(["name", "id", "overall", "seconds", "size", "time"]), default="name",
              show_default=True, help="What to sort by.")
@click.option("-r", "--reverse", is_flag=True, help="Sort in descending order.")
@JSON
def list_runs(patterns: tuple[str, ...], key: str, reverse: bool, as_json: bool) -> None:
    """List finished runs.

    A PATTERN selects runs by name, such as `sum-*`, or by the beginning of their id.
    """
    import gc

    from .views.runs import Inventory, runs_json, runs_text

    gc.disable()  # ten thousand manifests are a million objects without a cycle
    try:
        inventory = Inventory.of(registry_here(), patterns, key)
    finally:
        gc.enable()
    runs = inventory.runs[::-1] if reverse else inventory.runs
    if runs or not as_json:
        none = f"no run is called like {' or '.join(patterns)}"
        click.echo(runs_json(runs) if as_json else runs_text(runs) if runs or not patterns else none)
    for note in inventory.notes():
        click.echo(note, err=True)


@click.command()
@RUN
@JSON
def show(word: str, as_json: bool) -> None:
    """Show the scores, history, files and spec of a run.

    A RUN is an id, the beginning of an id, or a name.
    """
    from ..errors import clean
    from .views.diff import find_run
    from .views.runs import run_text

    run = find_run(registry_here(), word)
    lines = [json.dumps({"v": 1, **run.manifest})] if as_json else map(clean, run_text(run))
    for line in lines:
        click.echo(line)


@click.command()
@RUN
@click.option("-f", "--follow", is_flag=True, help="Keep printing until the run is finished or its worker ends.")
def logs(word: str, follow: bool) -> None:
    """Print the log of a run, finished or in training."""
    from ..errors import clean
    from .views.diff import find_run
    from .views.runs import in_progress, log

    registry = registry_here()
    matches = [work.id for work in in_progress(registry) if word and (work.id.startswith(word) or work.name == word)]
    id = matches[0] if len(matches) == 1 else find_run(registry, word).id
    for text in log(registry, id, follow):
        click.echo("\n".join(map(clean, text.split("\n"))), nl=False)


@click.command()
@click.argument("words", nargs=-1, metavar="[RUN]...", shell_complete=complete_runs)
@click.option("--set-aside", is_flag=True, help="Move damaged runs to .damaged/, so that a build trains them again.")
def verify(words: tuple[str, ...], set_aside: bool) -> None:
    """Check the files of finished runs against their hashes.

    Reads every byte of the given runs, by default of all; exit code 3 where any is damaged.
    """
    from ..errors import RegistryError, StorageError, clean
    from .views.diff import find_run

    registry = registry_here()
    known = registry.ids()
    ids = [word if word in known else find_run(registry, word).id for word in words] or known
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
    """Move a damaged run away, unless it is being trained or an intact run has replaced it meanwhile."""
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
@click.argument("words", nargs=-1, required=True, metavar="RUN...", shell_complete=complete_runs)
@click.option("--weights", is_flag=True, help="Remove the weights only; ensembles and tables still work.")
@click.option("--force", is_flag=True, help="Also remove runs that published results or detached builds refer to.")
def rm(words: tuple[str, ...], weights: bool, force: bool) -> None:
    """Remove runs, or their weights only.

    A RUN is an id, the beginning of an id, a name, or a pattern such as `sum-*`.
    """
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
        removed, errors = dict[str, Path | None](), list[str]()
        for run in runs:
            try:
                removed[run.id] = _detach_files(registry, run, weights)
            except MtrunError as error:
                errors.append(str(error))
    for run in runs:
        if run.id in removed:
            if place := removed[run.id]:
                remove(place)
            size = run.manifest["files"].get(WEIGHTS, {"size": 0})["size"] if weights else run.size()
            click.echo(clean(f"{run.id}  {run.manifest['name']}: {size / 1e6:,.1f} MB removed"))
    if errors:
        raise UsageError(*errors)


def _detach_files(registry: Registry, run: Run, weights: bool) -> Path | None:
    """Take a run, or its weights, out of the registry; return the path that is still to be deleted, if any.

    Raise UsageError for a run in training, StorageError where the registry cannot be changed.
    """
    from ..errors import UsageError

    with registry.claim(run.id) as lease:
        if lease is None:
            raise UsageError(f"the run {run.id} is in training")
        if weights:
            registry.drop_weights(run)
            return None
        return registry.discard(run.folder, run.id)


def _runs(registry: Registry, words: Sequence[str]) -> Iterator[Run]:
    """Yield the runs that ids, names or patterns refer to, each once. Raise UsageError for a word without a run."""
    from .views.diff import find_run
    from .views.runs import Inventory

    seen = set()
    for word in words:
        matches = Inventory.of(registry, [word]).runs if set(word) & set("*?[") else []
        for run in matches or [find_run(registry, word)]:
            if run.id not in seen:
                seen.add(run.id)
                yield run


def _check_needed(reservations: StoredReservations, runs: Sequence[Run], force: bool) -> None:
    """Raise UsageError where another command needs a run; `force` overrides detached builds only."""
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
@click.option("-n", "--dry-run", is_flag=True, help="List what would be removed, and remove nothing.")
def gc(dry_run: bool) -> None:
    """Remove runs and leftovers that nothing refers to.

    These are runs, attempts of builds that died, and damaged runs that were set aside. What a running command needs is
    kept, and so is a run that a spec under any profile or a published result refers to.
    """
    from ..build.gc import Scan, delete, existing_names, move_away
    from ..build.retention import Retention
    from ..errors import StorageError, clean
    from ..project import Project
    from ..registry.reservations import read_reservations, removal

    registry, project, total, errors = registry_here(), Project.here().folder, 0, list[str]()
    known = existing_names(registry)
    retention = Retention.of(project)
    with nullcontext(read_reservations(registry)) if dry_run else removal(registry) as reservations:
        retention.add_results(project)  # under the lock, so that new results are seen
        scan, taken = Scan(registry, retention, reservations, known), []
        for item in list(scan.garbage()):
            try:
                taken.append((item, item.path if dry_run else move_away(registry, item)))
            except StorageError as error:
                errors.append(str(error))
    for note in (*retention.notes, *reservations.notes, *(f"{what}; it is kept" for what in scan.unread)):
        click.echo(clean(note), err=True)
    for item, place in taken:
        try:
            if place is None:
                continue
            if not dry_run:
                delete(registry, item, place)
            total += item.size
            click.echo(clean(f"{os.path.relpath(item.path)}  {item.size:,} bytes: {item.why}"))
        except StorageError as error:
            errors.append(str(error))
    click.echo(f"{total:,} bytes {'would be' if dry_run else 'were'} removed", err=True)
    if errors:
        raise StorageError(*errors)
