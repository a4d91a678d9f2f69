"""Command that shows data: what was read of a suite, and what a model will see of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import JSON, SPEC, common_project, plan_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..parts.encoders import Encoder
    from ..parts.suites import Suite
    from ..tasks.data import Data
    from ..tasks.summaries import Ruler


@click.command()
@SPEC
@plan_options
@JSON
@click.option("--examples", "count", type=click.IntRange(0), default=0, metavar="N",
              help="Also print N examples of each task and split with their labels.")
def data(spec: Path, profile: str, settings: tuple[str, ...], as_json: bool, count: int) -> None:
    """Show the examples of a suite: lengths, labels, repetitions.

    SPEC is a suite, or a model or an ensemble, whose suite is shown. Lengths are in tokens of the model's encoder, else
    of the profile's, else in words. Nothing is trained.
    """
    from ..tasks.summaries import summarize
    from .views.data import json_lines, text

    project = common_project([spec])
    suite, encoder, joint = _subject(project, spec, profile, settings)
    content = suite.load(project)
    ruler, note = _ruler(encoder, content, project)
    summaries = summarize(content, suite.data_files(project), ruler, joint)
    click.echo(json_lines(content, summaries, count) if as_json else text(content, summaries, count))
    click.echo(note, err=True)


def _subject(project: Path, spec: Path, profile: str, settings: Sequence[str]
             ) -> tuple[Suite, Encoder | None, Sequence[str]]:
    """Return suite and encoder of a spec, those of the first model of an ensemble, and the tasks with joint pairs.

    Raise SpecError, and UsageError for an ensemble without a model.
    """
    from ..errors import Problem, UsageError
    from ..specs.loader import Loader
    from ..specs.spec import Leaf, leaves

    loader = Loader(project, profile, settings, needs_files=False)
    if loader.is_suite(spec):
        return *loader.suite_in(spec), ()
    leaf = next((leaf for node in loader.load(spec) for leaf in leaves(node) if isinstance(leaf, Leaf)), None)
    if leaf is None:
        raise UsageError(Problem(f"{spec} has no model that would tell its suite",
                                 hint="name the suite itself, such as specs/suites/NAME.toml"))
    return leaf.model.suite, leaf.model.encoder, tuple(leaf.model.joint)


def _ruler(encoder: Encoder | None, content: Data, project: Path) -> tuple[Ruler, str]:
    """Return what lengths are measured in, and a note that says so; words where the encoder's files are missing."""
    from ..errors import CheckpointError, DataError
    from ..tasks.summaries import Ruler

    if encoder is None:
        return Ruler.words(), "lengths are in words, since neither the spec nor the profile has an encoder"
    try:
        ruler = Ruler.tokens(encoder.tokenizer(content, project))
    except (CheckpointError, DataError) as error:
        return Ruler.words(), f"lengths are in words, since the encoder has no tokenizer here: {error}"
    return ruler, f"lengths are in tokens of the encoder `{encoder.type}`, which cuts what is longer than {ruler.limit}"
