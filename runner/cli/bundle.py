"""Commands for bundles: export, import and reproduce."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import SPECS, load_reserved_plan, plan_options

if TYPE_CHECKING:
    from ..plan.plan import Plan
    from ..registry.registry import Run


@click.command()
@SPECS
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="PATH",
              help="A file that ends with .zip, or a new folder; default: NAME.mtrun.zip.")
@plan_options
def export(specs: tuple[Path, ...], output: Path | None, profile: str, settings: tuple[str, ...]) -> None:
    """Write built systems into one bundle for other machines.

    A bundle holds specs, runs with their weights, and results; `mtrun import` checks and takes it in.
    """
    from ..build.bundle import archive
    from ..build.bundle import bundle as bundles
    from ..plan.predict import finished

    plan, _ = load_reserved_plan(specs, profile, settings)
    runs = {id: run for root in plan.roots.values() for id, run in finished(plan, root).items()}
    path = output or Path(f"{specs[0].stem}.mtrun.zip")
    files = bundles.files(plan, settings, _interchange_files(plan, runs))
    archive.write(path, files)
    click.echo(f"{path}  {len(files)} files, {sum(map(archive.size, files.values())) / 1e6:,.1f} MB, "
               f"{len(runs)} run{'s' * (len(runs) != 1)}: {', '.join(plan.roots)}")


def _interchange_files(plan: Plan, runs: Mapping[str, Run]) -> dict[str, bytes]:
    """Return the files of a bundle for other libraries: all tokenizers and, of a single leaf, the model."""
    from ..inference import huggingface
    from ..registry.registry import WEIGHTS
    from ..training.stored_model import StoredModel

    files = {f"tokenizers/{id}.json": huggingface.tokenizer(run, plan.data[plan.nodes[id].suite], plan.project)
             for id, run in runs.items()}
    for id, run in runs.items() if len(runs) == 1 else ():
        if WEIGHTS in run.manifest["files"]:
            leaf = StoredModel.of(run, plan.data[plan.nodes[id].suite], plan.project)
            exported = huggingface.transformers(leaf, plan.project)
            if not exported:
                what = leaf.model.adapter or leaf.model.encoder
                click.echo(f"without a folder for transformers, which has no model like `{what.type}`", err=True)
            files |= {f"transformers/{name}": content for name, content in exported.items()}
    return files


@click.command("import")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path), default=Path())
@click.option("--trust", is_flag=True, help="Accept specs that name programs to run, such as an executor's command "
              "line.")
def import_bundle(bundle: Path, folder: Path, trust: bool) -> None:
    """Copy a bundle's runs, specs and results into a project.

    The whole BUNDLE is checked first. Nothing in the project DIR is overwritten, and specs that would run other code
    than mtrun's are refused without --trust.
    """
    import shlex

    from ..build.bundle import bundle as bundles
    from ..build.bundle import import_bundle as importing
    from ..errors import clean

    with bundles.opened(bundle) as content:
        trusted = importing.executable_settings(content, folder.resolve())
        new = importing.import_into(content, folder.resolve(), trust)
        record = content.record
    runs, specs = (sum(name.startswith(kind) for name in new) for kind in ("registry/", "specs/"))
    click.echo(f"{folder}: {runs} runs and {specs} specs are new; systems: {', '.join(record.systems)}")
    for line in trusted:
        click.echo(clean(f"taken on trust, and run by a build: {line}"), err=True)
    options = ["--profile", record.profile, *(word for text in record.settings for word in ("--set", text))]
    click.echo(clean(f"they were built with {shlex.join(options)}"), err=True)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
def reproduce(bundle: Path) -> None:
    """Recompute a bundle's tables and compare every number.

    The numbers are computed from the predictions in the BUNDLE; exit code 1 where any differs.
    """
    import tempfile

    from ..build.bundle import bundle as bundles
    from ..files import write_bytes
    from ..project import Project
    from ..results.leaderboard import tables
    from ..results.result_folder import read

    with bundles.opened(bundle) as content:
        content.verify()
        unverified = content.unverified_labels(Project.here().folder)
        pairs = content.recomputed(Project.here().folder)
    for suite in unverified:
        click.echo(f"the labels of {suite} are those in the bundle: this project has no such data", err=True)
    with tempfile.TemporaryDirectory(prefix="mtrun-") as folder:
        for name, (_, recomputed) in pairs.items():
            write_bytes(Path(folder) / name, recomputed)
        click.echo(tables(read(Path(folder) / "results")).text, nl=False)
    wrong = [line for name, (stored, recomputed) in pairs.items()
             for line in bundles.differences(name, stored, recomputed)]
    for line in wrong:
        click.echo(line)
    count = sum(bundles.numbers(recomputed) for _, recomputed in pairs.values())
    click.echo(f"{count} numbers, {len(wrong)} differ", err=True)
    sys.exit(1 if wrong else 0)
