"""The commands that use what was built: predict, submit, export, import, reproduce."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import SPEC, one_node, planning, reserving

if TYPE_CHECKING:
    from ..inference.inputs import Input

NODE = click.option("--node", metavar="NAME", help="Another node of the spec than its root, by name or id.")


@click.command()
@SPEC
@click.argument("texts", nargs=-1, metavar="[SENTENCE]...")
@click.option("--pair", "pairs", nargs=2, multiple=True, metavar="SENTENCE SENTENCE", help="Two sentences to compare.")
@click.option("-i", "--input", "source", metavar="FILE", help="Read questions from a file; `-` is standard input.")
@click.option("--from", "form", type=click.Choice(["lines", "csv", "jsonl"]), help="What is read; else by its name.")
@click.option("--task", "tasks", multiple=True, metavar="TASK", help="Answer this task only.")
@click.option("--members", is_flag=True, help="Show what each member says, down to the leaves.")
@click.option("--format", "style", type=click.Choice(["text", "csv", "json"]), default="text", show_default=True)
@click.option("--split", type=click.Choice(["dev", "test"]), default="test", show_default=True,
              help="What CSV says of where the questions are from, to be read as a predictions file.")


@click.option("--interactive", is_flag=True, help="Ask for one question after another.")
@NODE
@planning
def predict(spec: Path, texts: tuple[str, ...], pairs: tuple[tuple[str, str], ...], source: str | None,
            form: str | None, tasks: tuple[str, ...], members: bool, style: str, split: str, interactive: bool,
            node: str | None, profile: str, settings: tuple[str, ...]) -> None:
    """Answer each task about sentences and pairs, from arguments, a file or standard input.

    In a line of text, a tab or ` ||| ` stands between the two sentences of a pair. A table's header, and each JSON
    object, names `sentence`, or `sentence1` and `sentence2`, and perhaps `id` and `task`.
    """
    from ..inference.outputs import Style

    asked = None if interactive and not (texts or pairs or source) else _asked(texts, pairs, source, form)
    plan, _ = reserving([spec], profile, settings)
    from ..inference.system import System  # here, since it imports torch and a wrong spec should be told at once

    system = System(plan, one_node(plan, node))
    shown = Style(style, max(task.outputs for task in system.tasks.values()), split, members)
    if shown.header:
        click.echo(shown.header)
    if asked is None:
        _converse(lambda question: map(shown, system.answers([question], tasks, members)))
    else:
        for said in system.answers(asked, tasks, members):
            click.echo(shown(said))


def _asked(texts: tuple[str, ...], pairs: tuple[tuple[str, str], ...], source: str | None, form: str | None
           ) -> Iterator[Input]:
    """Return the questions that a command line means. Raise UsageError where that is not clear."""
    from ..errors import UsageError
    from ..inference import inputs

    if (texts or pairs) and source is not None:
        raise UsageError("give sentences or a file, not both")
    if texts or pairs:
        return inputs.of_texts(texts, pairs)
    if source is None and sys.stdin.isatty():
        raise UsageError("nothing to predict: give sentences, `--pair A B`, `--input FILE`, or `--interactive`")
    return inputs.of_file(source or "-", form)


def _converse(answer: Callable[[Input], Iterable[str]]) -> None:
    """Answer what a person types, until an empty line or the end of input."""
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
              help="Where to write; default: submissions/PROFILE/NAME.")


@NODE
@planning
def submit(spec: Path, output: Path | None, node: str | None, profile: str, settings: tuple[str, ...]) -> None:
    """Write the prediction files of the course CS224N for dev and test, and a zip of them."""
    from ..build.bundle import archive
    from ..errors import UsageError
    from ..files import write_bytes
    from ..inference import submission
    from ..plan.predict import tree_predictions

    plan, _ = reserving([spec], profile, settings)
    root = one_node(plan, node)
    data = plan.data[plan.nodes[root].suite]
    predictions = tree_predictions(plan, root).of(root)
    sheets = submission.sheets(predictions, data)
    if not sheets:
        raise UsageError("there is nothing to hand in: the system predicts neither dev nor test")
    folder = output or plan.project / "submissions" / profile / spec.stem
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



COMMANDS = (predict, submit,)
