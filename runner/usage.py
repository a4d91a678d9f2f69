"""The commands that use what was built: predict, submit, export, import, reproduce."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import SPEC, SPECS, one_node, planning, reserving

if TYPE_CHECKING:
    from .plan import Plan
    from .questions import Question
    from .registry import Run

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
    from .answers import Style

    asked = None if interactive and not (texts or pairs or source) else _asked(texts, pairs, source, form)
    plan, _ = reserving([spec], profile, settings)
    from .inference import System  # here, since it imports torch and a wrong spec should be told at once

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
           ) -> Iterator[Question]:
    """Return the questions that a command line means. Raise UsageError where that is not clear."""
    from . import questions
    from .errors import UsageError

    if (texts or pairs) and source is not None:
        raise UsageError("give sentences or a file, not both")
    if texts or pairs:
        return questions.of_texts(texts, pairs)
    if source is None and sys.stdin.isatty():
        raise UsageError("nothing to predict: give sentences, `--pair A B`, `--input FILE`, or `--interactive`")
    return questions.of_file(source or "-", form)


def _converse(answer: Callable[[Question], Iterable[str]]) -> None:
    """Answer what a person types, until an empty line or the end of input."""
    from .errors import MtrunError
    from .questions import Question, split

    click.echo("a sentence, or two with ||| between them; an empty line ends", err=True)
    for number in itertools.count(1):
        line = click.prompt(">", default="", show_default=False, prompt_suffix=" ", err=True)
        if not line.strip():
            return
        try:
            for text in answer(Question(str(number), split(line))):
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
    from . import archives, submission
    from .errors import UsageError
    from .files import write_bytes
    from .outcomes import Outcomes

    plan, _ = reserving([spec], profile, settings)
    root = one_node(plan, node)
    data = plan.data[plan.nodes[root].suite]
    predictions = Outcomes.of(plan, root).predictions[root]
    sheets = submission.sheets(predictions, data)
    if not sheets:
        raise UsageError("there is nothing to hand in: the system predicts neither dev nor test")
    folder = output or plan.project / "submissions" / profile / spec.stem
    files = {f"predictions/{sheet.name}": sheet.text().encode() for sheet in sheets}
    for name, content in files.items():
        write_bytes(folder / name, content)
    archives.write(folder / submission.ARCHIVE, files)
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


@click.command()
@SPECS
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="PATH",
              help="A file that ends with .zip, or a new folder; default: NAME.mtrun.zip.")
@planning
def export(specs: tuple[Path, ...], output: Path | None, profile: str, settings: tuple[str, ...]) -> None:
    """Write all that systems are made of, weights too, into one file that another machine can check and use."""
    from . import archives, bundles
    from .outcomes import finished

    plan, _ = reserving(specs, profile, settings)
    runs = {id: run for root in plan.roots.values() for id, run in finished(plan, root).items()}
    path = output or Path(f"{specs[0].stem}.mtrun.zip")
    files = bundles.files(plan, settings, _for_others(plan, runs))
    archives.write(path, files)
    click.echo(f"{path}  {len(files)} files, {sum(map(archives.size, files.values())) / 1e6:,.1f} MB, "
               f"{len(runs)} run{'s' * (len(runs) != 1)}: {', '.join(plan.roots)}")


def _for_others(plan: Plan, runs: Mapping[str, Run]) -> dict[str, bytes]:
    """Return the files of a bundle that other libraries read: tokenizers and, of a single leaf, the model."""
    from . import interchange
    from .inference import Trained
    from .registry import WEIGHTS

    files = {f"tokenizers/{id}.json": interchange.tokenizer(run, plan.data[plan.nodes[id].suite], plan.project)
             for id, run in runs.items()}
    for id, run in runs.items() if len(runs) == 1 else ():
        if WEIGHTS in run.manifest["files"]:
            leaf = Trained.of(run, plan.data[plan.nodes[id].suite], plan.project)
            files |= {f"transformers/{name}": content for name, content in interchange.transformers(leaf).items()}
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

    from . import bundles, intake
    from .errors import clean

    with bundles.opened(bundle) as held:
        ran = intake.foreign(held, folder.resolve())
        new = intake.take(held, folder.resolve(), trust)
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

    from . import bundles
    from .files import write_bytes
    from .inventory import project_here
    from .leaderboards import tables
    from .result_folder import read

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


COMMANDS = (predict, submit, export, import_bundle, reproduce)
