"""Render summaries of the examples of a suite as text of the width of the terminal, and as JSON Lines."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from ...errors import clean
from ...tasks.data import Data, Examples, Task
from ...tasks.summaries import SplitSummary, TaskSummary, label_text, spread

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = 20
"""Maximal number of classes whose counts are printed; JSON has all."""

QUARTILES = {"min": "least", "quartile_1": "25 %", "median": "median", "quartile_3": "75 %", "max": "most"}
"""Fields of a scale and what they are called."""

PAIRED = " ||| "
"""What stands between the two sentences of a pair, as in the input of `mtrun predict`."""


def text(data: Data, summaries: Mapping[str, TaskSummary], count: int) -> str:
    """Render the tasks of a suite, with `count` examples of each split."""
    from rich.console import Console

    console = Console(file=io.StringIO(), highlight=False, markup=False, emoji=False, color_system=None)
    for number, (name, summary) in enumerate(summaries.items()):
        console.print("\n" * bool(number) + clean(_title(name, summary)), soft_wrap=True)
        console.print(_splits(summary), _labels(summary), sep="\n")
        for note in _notes(summary):
            console.print(f"- {clean(note)}")
        if count:
            console.print("", _examples(summary.task, data.splits[name], count), sep="\n")
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def _title(name: str, summary: TaskSummary) -> str:
    """Return the heading of a task: name, kind, sentences of an example."""
    task = summary.task
    kinds = {"classification": f"one of {task.outputs} classes", "binary": " or ".join(task.names),
             "multilabel": f"any of {task.outputs} labels",
             "regression": f"a number from {task.low:g} to {task.high:g}"}
    inputs = "a pair read as one sequence" if summary.is_joint else ("a sentence", "a pair")[task.sentences - 1]
    title = "" if task.title == name else f" ({task.title})"
    return f"{name}{title}: {kinds[task.kind]}, for {inputs}"


def _table(*columns: str, left: Sequence[int] = (0,)) -> Table:
    """Return an empty table whose columns are aligned right, but for those at the positions `left`."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for position, column in enumerate(columns):
        table.add_column(column, justify="left" if position in left else "right", overflow="fold")
    return table


def _splits(summary: TaskSummary) -> Table:
    """Return the table of the splits: examples, dropped rows, lengths, files."""
    cut = [] if summary.limit is None else [f"over {summary.limit}"]
    dropped = ["dropped"] if any(split.dropped for split in summary.splits.values()) else []
    columns = ("split", "examples", *dropped, f"{summary.unit}: median", "95 %", "longest", *cut, "read from")
    table = _table(*columns, left=(0, len(columns) - 1))
    for name, split in summary.splits.items():
        lengths = split.lengths
        numbers = [f"{split.examples:,}", *(f"{split.dropped:,}" for _ in dropped), f"{lengths.median:g}",
                   f"{lengths.percentile_95:.0f}", f"{lengths.longest:,}", *(f"{lengths.cut:,}" for _ in cut)]
        table.add_row(name, *numbers, clean(_files(name, summary)))
    return table


def _files(name: str, summary: TaskSummary) -> str:
    """Return the files of a split in a few words."""
    files = summary.splits[name].files
    if not files:
        return "a share of train" if any(split.files for split in summary.splits.values()) else "generated"
    return ", ".join(files) if len(files) < 3 else f"{files[0]} and {len(files) - 1} more"


def _labels(summary: TaskSummary) -> Table:
    """Return the table of the labels, one column a split: counts with shares, or the quartiles of a regression."""
    splits = summary.splits
    if summary.task.kind == "regression":
        table = _table("label", *splits)
        for key, name in QUARTILES.items():
            values = (f"{getattr(split.scale, key):g}" if split.scale else "—" for split in splits.values())
            table.add_row(name, *values)
        return table
    table = _table("label", *splits)
    totals = {name: sum((split.classes or {}).get(name, 0) for split in splits.values()) for name in summary.task.names}
    shown = sorted(totals, key=lambda name: -totals[name])[:SHOWN] if len(totals) > SHOWN else list(totals)
    for name in shown:
        table.add_row(clean(name), *(_count(split, name) for split in splits.values()))
    return table


def _count(split: SplitSummary, name: str) -> str:
    """Return number and share of the examples with a label."""
    if split.classes is None:
        return "—"
    return f"{split.classes[name]:,} {f'({split.classes[name] / split.examples:.1%})':>8}"


def _notes(summary: TaskSummary) -> Iterator[str]:
    """Yield what should be looked at, each with an example."""
    if (more := len(summary.task.names) - SHOWN) > 0:
        yield f"the {SHOWN} most frequent labels are shown; --json has the other {more:,}"
    for name, split in summary.splits.items():
        if split.lengths.cut:
            what = "pairs" if summary.is_joint else "sentences"
            yield f"{name}: {split.lengths.cut:,} {what} are cut, such as that of id {split.lengths.cut_id}"
        if split.classes is None and split.scale is None:
            yield f"{name}: its labels are not known"
        if split.repeated:
            id, earlier = split.repeated_ids
            yield f"{name}: {_examples_have(split.repeated)} the sentences of an earlier one, such as {id} of {earlier}"
        if missing := split.missing:
            listed = ", ".join(f"`{label}`" for label in missing[:5])
            yield f"{name}: no example of {listed}" + f" and {len(missing) - 5} more" * (len(missing) > 5)
    for overlap in summary.overlaps:
        yield (f"{overlap.split}: {_examples_have(overlap.shared)} the sentences of an example in {overlap.earlier}, "
               f"such as id {overlap.example}")
    if found := summary.contradiction:
        what = ("sentence", "pair")[summary.task.sentences - 1]
        what += " has" if summary.contradictions == 1 else "s have"
        ends = " and ".join(f"id {id} in {split} (`{label}`)" for split, id, label in (found.one, found.other))
        yield f"{summary.contradictions:,} {what} several labels, such as {ends}"


def _examples_have(count: int) -> str:
    return "1 example has" if count == 1 else f"{count:,} examples have"


def _examples(task: Task, splits: Mapping[str, Examples], count: int) -> Table:
    """Return a table with examples of each split."""
    table = _table("split", "id", "label", "example", left=(0, 1, 2, 3))
    for split, part in splits.items():
        sentences = part.sentences()
        for at in spread(part, count):
            table.add_row(split, clean(part.ids[at]), clean(_label(task, part, at)), clean(PAIRED.join(sentences[at])))
    return table


def _label(task: Task, part: Examples, at: int) -> str:
    return "—" if part.labels is None else label_text(task, part.labels[at].tolist())


def json_lines(data: Data, summaries: Mapping[str, TaskSummary], count: int) -> str:
    """Render the tasks of a suite as JSON Lines: one object a task."""
    return "\n".join(json.dumps(_task(name, summary, data.splits[name], count)) for name, summary in summaries.items())


def _task(name: str, summary: TaskSummary, splits: Mapping[str, Examples], count: int) -> dict[str, object]:
    """Return a task as plain JSON, with its examples if any are asked for."""
    task = summary.task
    out = {"v": 1, "task": name, "title": task.title, "kind": task.kind, "sentences": task.sentences,
           "labels": task.names, "unit": summary.unit, "limit": summary.limit, "joint": summary.is_joint,
           "splits": {split: asdict(each) | {"missing": each.missing} for split, each in summary.splits.items()},
           "contradictions": summary.contradictions,
           "contradiction": summary.contradiction and asdict(summary.contradiction),
           "overlaps": [overlap._asdict() for overlap in summary.overlaps]}
    if count:
        out["examples"] = {split: [{"id": part.ids[at], "sentences": part.sentences()[at],
                                    "label": None if part.labels is None else _label(task, part, at)}
                                   for at in spread(part, count)] for split, part in splits.items()}
    return out
