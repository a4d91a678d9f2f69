"""runner/cli/bundle.py"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import SPECS, planning, reserving

if TYPE_CHECKING:
    from ..plan.plan import Plan
    from ..registry.registry import Run


@click.command()
@SPECS
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="PATH",
              help="A file that ends with .zip, or a new folder; default: NAME.mtrun.zip.")


@planning
def export(specs: tuple[Path, ...], output: Path | None, profile: str, settings: tuple[str, ...]) -> None:
    """Write all that systems are made of, weights too, into one file that another machine can check and use."""
    from ..build.bundle import archive
    from ..build.bundle import bundle as bundles
    from ..plan.predict import finished

    plan, _ = reserving(specs, profile, settings)
    runs = {id: run for root in plan.roots.values() for id, run in finished(plan, root).items()}
    path = output or Path(f"{specs[0].stem}.mtrun.zip")
    files = bundles.files(plan, settings, _for_others(plan, runs))
    archive.write(path, files)
    click.echo(f"{path}  {len(files)} files, {sum(map(archive.size, files.values())) / 1e6:,.1f} MB, "
               f"{len(runs)} run{'s' * (len(runs) != 1)}: {', '.join(plan.roots)}")


def _for_others(plan: Plan, runs: Mapping[str, Run]) -> dict[str, bytes]:
    """Return the files of a bundle that other libraries read: tokenizers and, of a single leaf, the model."""
    from ..inference import huggingface
    from ..registry.registry import WEIGHTS
    from ..training.stored_model import StoredModel

    files = {f"tokenizers/{id}.json": huggingface.tokenizer(run, plan.data[plan.nodes[id].suite], plan.project)
             for id, run in runs.items()}
    for id, run in runs.items() if len(runs) == 1 else ():
        if WEIGHTS in run.manifest["files"]:
            leaf = StoredModel.of(run, plan.data[plan.nodes[id].suite], plan.project)
            files |= {f"transformers/{name}": content for name, content in huggingface.transformers(leaf).items()}
    return files


@click.command("import")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path), default=Path())
@click.option("--trust", is_flag=True, help="Take specs that say what is run, such as an executor's command line.")
def import_bundle(bundle: Path, folder: Path, trust: bool) -> None:
    """Take runs, specs and results of a BUNDLE into the project DIR, after a check of all of it.

    Nothing that is there is overwritten, and nothing that would run other code than mtrun's is taken unasked.
    """
    import shlex

    from ..build.bundle import bundle as bundles
    from ..build.bundle import import_bundle as intake
    from ..errors import clean

    with bundles.opened(bundle) as held:
        ran = intake.executable_settings(held, folder.resolve())
        new = intake.import_into(held, folder.resolve(), trust)
        record = held.record
    runs, specs = (sum(name.startswith(kind) for name in new) for kind in ("registry/", "specs/"))
    click.echo(f"{folder}: {runs} runs and {specs} specs are new; systems: {', '.join(record.systems)}")
    for line in ran:
        click.echo(clean(f"taken on trust, and run by a build: {line}"), err=True)
    options = ["--profile", record.profile, *(word for text in record.settings for word in ("--set", text))]
    click.echo(clean(f"they were built with {shlex.join(options)}"), err=True)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
def reproduce(bundle: Path) -> None:
    """Compute every number of a BUNDLE's table again, from the predictions in it, and compare."""
    import tempfile

    from ..build.bundle import bundle as bundles
    from ..files import write_bytes
    from ..project import project_here
    from ..results.leaderboard import tables
    from ..results.result_folder import read

    with bundles.opened(bundle) as held:
        held.verify()
        pairs = held.recomputed(project_here())
    with tempfile.TemporaryDirectory(prefix="mtrun-") as folder:
        for name, (_, made) in pairs.items():
            write_bytes(Path(folder) / name, made)
        click.echo(tables(read(Path(folder) / "results")).text, nl=False)
    wrong = [line for name, (there, made) in pairs.items() for line in bundles.differences(name, there, made)]
    for line in wrong:
        click.echo(line)
    click.echo(f"{sum(bundles.numbers(made) for _, made in pairs.values())} numbers, {len(wrong)} differ", err=True)
    sys.exit(1 if wrong else 0)

COMMANDS = (export, import_bundle, reproduce,)
