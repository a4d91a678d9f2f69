"""Commands that use built systems: predict and submit."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import SPEC, find_node, load_reserved_plan, plan_options

if TYPE_CHECKING:
    from ..inference.inputs import Input

NODE = click.option("--node", metavar="NAME", help="Node of the spec to use, by name or id; default: its root.")


@click.command()
@SPEC
@click.argument("texts", nargs=-1, metavar="[SENTENCE]...")
@click.option("--pair", "pairs", nargs=2, multiple=True, metavar="SENTENCE SENTENCE",
              help="Predict for a pair; can be repeated.")
@click.option("-i", "--input", "source", metavar="FILE", help="Read sentences from a file; `-` is standard input.")
@click.option("--from", "form", type=click.Choice(["lines", "csv", "jsonl"]),
              help="Format of the input; default: by its name.")
@click.option("--task", "tasks", multiple=True, metavar="TASK", help="Predict this task only; can be repeated.")
@click.option("--members", is_flag=True, help="Also print the predictions of all members, down to the leaves.")
@click.option("--format", "style", type=click.Choice(["text", "csv", "json"]), default="text", show_default=True,
              help="Format of the output.")
@click.option("--split", type=click.Choice(["dev", "test"]), default="test", show_default=True,
              help="Split named in CSV output, which can then be a member of an ensemble.")
@click.option("--interactive", is_flag=True, help="Prompt for one input after another.")
@NODE
@plan_options
def predict(spec: Path, texts: tuple[str, ...], pairs: tuple[tuple[str, str], ...], source: str | None,
            form: str | None, tasks: tuple[str, ...], members: bool, style: str, split: str, interactive: bool,
            node: str | None, profile: str, settings: tuple[str, ...]) -> None:
    """Predict all tasks for sentences and pairs of sentences.

    They come from arguments, a file or standard input. In a line of text, a tab or ` ||| ` separates the two sentences
    of a pair. CSV and JSON Lines have a column or key `sentence`, or `sentence1` and `sentence2`, and optionally `id`
    and `task`.
    """
    from ..inference.outputs import Style

    inputs = None if interactive and not (texts or pairs or source) else _inputs(texts, pairs, source, form)
    plan, _ = load_reserved_plan([spec], profile, settings)
    from ..inference.system import System  # here, since it imports torch, and a wrong spec is to be reported at once

    system = System(plan, find_node(plan, node))
    render = Style(style, max(task.outputs for task in system.tasks.values()), split, members)
    if render.header:
        click.echo(render.header)
    if inputs is None:
        _prompt(lambda question: map(render, system.answers([question], tasks, members)))
    else:
        for answers in system.answers(inputs, tasks, members):
            click.echo(render(answers))


def _inputs(texts: tuple[str, ...], pairs: tuple[tuple[str, str], ...], source: str | None, form: str | None
            ) -> Iterator[Input]:
    """Return the sentences and pairs of a command line. Raise UsageError where it has none, or two sources."""
    from ..errors import UsageError
    from ..inference import inputs

    if (texts or pairs) and source is not None:
        raise UsageError("give sentences or a file, not both")
    if texts or pairs:
        return inputs.of_texts(texts, pairs)
    if source is None and sys.stdin.isatty():
        raise UsageError("nothing to predict: give sentences, `--pair A B`, `--input FILE`, or `--interactive`")
    return inputs.of_file(source or "-", form)


def _prompt(answer: Callable[[Input], Iterable[str]]) -> None:
    """Prompt for sentences and print their predictions, until an empty line or the end of input."""
    from ..errors import MtrunError
    from ..inference.inputs import Input, split

    click.echo("a sentence, or two with ||| between them; an empty line ends", err=True)
    for number in itertools.count(1):
        line = click.prompt(">", default="", show_default=False, prompt_suffix=" ", err=True)
        if not line.strip():
            return
        try:
            for text in answer(Input(str(number), split(line))):
                click.echo(text)
        except MtrunError as error:
            click.echo(error.render(), err=True)


@click.command()
@SPEC
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Output folder; default: submissions/PROFILE/NAME.")
@NODE
@plan_options
def submit(spec: Path, output: Path | None, node: str | None, profile: str, settings: tuple[str, ...]) -> None:
    """Write the prediction files of the course CS224N.

    One file for each of its tasks on dev and test, a zip of them, and all scores as a predictions file.
    """
    from ..build.bundle import archive
    from ..errors import UsageError
    from ..files import write_bytes
    from ..inference import submission
    from ..plan.predict import tree_predictions

    plan, _ = load_reserved_plan([spec], profile, settings)
    root = find_node(plan, node)
    data = plan.data[plan.nodes[root].suite]
    predictions = tree_predictions(plan, root).of(root)
    sheets = submission.sheets(predictions, data)
    if not sheets:
        raise UsageError("there is nothing to hand in: the system predicts neither dev nor test")
    folder = output or plan.project / "submissions" / plan.profile / spec.stem
    files = {f"predictions/{sheet.name}": sheet.text().encode() for sheet in sheets}
    for name, content in files.items():
        write_bytes(folder / name, content)
    archive.write(folder / submission.ARCHIVE, files)
    write_bytes(folder / submission.SCORES, predictions.to_bytes())
    paths = [os.path.relpath(folder / "predictions" / sheet.name) for sheet in sheets]
    for path, sheet in zip(paths, sheets, strict=True):
        score = "labels hidden" if sheet.score is None else f"{sheet.score:.3f}"
        click.echo(f"{path:{max(map(len, paths))}}  {len(sheet.ids):6,} rows  {score}")
    click.echo(os.path.relpath(folder / submission.ARCHIVE))
    scores = os.path.relpath(folder / submission.SCORES)
    click.echo(f"{scores}  the same with all scores, to be a member of an ensemble")
    for note in submission.missing(sheets, data):
        click.echo(note, err=True)
