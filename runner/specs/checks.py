"""Check that the valid parts of a spec fit together: tasks, heads, losses, members."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from ..errors import MtrunError, Place, Problem, did_you_mean, nearest
from ..part import Part
from ..parts.discovery import find, names
from ..parts.encoders import Encoder
from ..parts.heads import Head
from ..parts.losses import Loss
from ..parts.suites import Suite
from ..tasks.data import Task
from ..tasks.metrics import OVERALL, measures
from .names import wrong_task_name
from .spec import Model, Tree
from .toml import Array, Table

P = TypeVar("P", bound=Part)


def place(table: Table, *path: str) -> Place:
    """Return the place of a value, or of the innermost existing table on the path to it."""
    at, value = table.place, table
    for key in path:
        if not isinstance(value, Table) or key not in value:
            return at
        at, value = value.values_at[key], value[key]
    return at


def misnamed_head(name: str, table: Table, suite: Suite) -> Problem:
    """Return the problem of a head for a task that the suite lacks; `table` is the model's."""
    tasks, heads = suite.meanings(), table["heads"]
    alike, notes = nearest(name, tasks), [f"the tasks of {table['suite'].place.file}: {', '.join(tasks)}"]
    if alike and "tasks" in table["suite"]:
        notes.append(f"`{alike}` is at {place(table, 'suite', 'tasks', alike)}")
    return Problem(f"unknown task `{name}` in `[heads.{name}]`", heads.keys_at[name], tuple(notes),
                   did_you_mean(name, tasks))


def unsafe_tasks(suite: Suite, table: Table) -> Iterator[Problem]:
    """Yield the problem of each task of a suite with an invalid name; `table` is the suite's."""
    tasks = table.get("tasks")
    for name in suite.meanings():
        if wrong := wrong_task_name(name):
            at = tasks.keys_at[name] if isinstance(tasks, Table) and name in tasks else table.place
            yield Problem(wrong[0], at, hint=wrong[1])


def misfits(model: Model, table: Table) -> Iterator[Problem]:
    """Yield the problems of a model whose parts are incompatible; `table` is the model's."""
    tasks = model.suite.meanings()
    regularizer, encoder = model.regularizer, model.encoder
    if regularizer and regularizer.needs_tokens and not encoder.has_token_states:
        fit = [part for part in names(Encoder) if _class(Encoder, part).has_token_states]  # type: ignore[type-abstract]
        yield Problem(f"the regularizer `{regularizer.type}` needs the states of single tokens, but the encoder "
                      f"`{encoder.type}` has none to tell", place(table, "regularizer", "type"),
                      (f"encoders for it: {', '.join(fit)}",))
    if regularizer and regularizer.needs_words and not encoder.has_word_table:
        fit = [part for part in names(Encoder) if _class(Encoder, part).has_word_table]  # type: ignore[type-abstract]
        yield Problem(f"the regularizer `{regularizer.type}` changes word embeddings, and those of the encoder "
                      f"`{encoder.type}` cannot be replaced", place(table, "regularizer", "type"),
                      (f"encoders for it: {', '.join(fit)}",))
    if model.adapter and not encoder.takes_adapters:
        fit = [part for part in names(Encoder) if _class(Encoder, part).takes_adapters]  # type: ignore[type-abstract]
        yield Problem(f"the encoder `{encoder.type}` takes no adapter", place(table, "adapter", "type"),
                      (f"encoders for it: {', '.join(fit)}",))
    for name, head in model.heads.items():
        if head.pooling and head.pooling not in encoder.poolings:
            known = f"poolings for it: {', '.join(encoder.poolings)}" if encoder.poolings else "it has only one"
            yield Problem(f"the encoder `{encoder.type}` has no pooling `{head.pooling}` for a head",
                          place(table, "heads", name, "pooling"), (known,))
        yield from _head_misfits(name, model, tasks[name], table)
    by, scores = model.train.select_by, measures({name: tasks[name] for name in model.trained if name in tasks})
    if by != OVERALL and by not in scores:
        yield Problem(f"`train.select_by` is no score of a trained task: `{by}`", place(table, "train", "select_by"),
                      (f"it can be: {', '.join([OVERALL, *scores])}",), did_you_mean(by, [OVERALL, *scores]))
    trained = table.get("train", {}).get("tasks")
    for name, at in zip(trained, trained.items_at, strict=True) if isinstance(trained, Array) else ():
        if trained.count(name) > 1:
            yield Problem(f"`{name}` stands more than once in `train.tasks`", at)
        if name not in model.heads:
            yield Problem(f"unknown task `{name}` in `train.tasks`", at,
                          (f"tasks with a head: {', '.join(model.heads)}",), did_you_mean(name, model.heads))


def missing_files(model: Model, table: Table, project: Path) -> Iterator[Problem]:
    """Yield the problems of packages and files that a model needs and this machine lacks; `table` is the model's."""
    for name in type(model.track).model_fields:
        if getattr(model.track, name) and not find_spec(name):
            yield Problem(f"`track.{name}` needs the package `{name}`, which is not installed",
                          place(table, "track", name), hint=f"run `pip install 'mtrun[{name}]'`")
    for name, file in (model.teacher.unlabelled if model.teacher else {}).items():
        if not (project / file).is_file():
            yield Problem(f"no file `{file}` of unlabelled sentences for `{name}`",
                          place(table, "teacher", "unlabelled", name), (f"looked in {project}",),
                          "name it from the project's folder")
    yield from _unfit_poolings(model, table, project)
    with suppress(MtrunError):  # which the check above told
        sizes = model.encoder.sizes(project)
        if sizes and model.adapter and (misfit := model.adapter.misfit(sizes, model.encoder.frozen_layers)):
            field, wrong = misfit
            yield Problem(wrong, place(table, "adapter", field))
        if sizes and sizes.embedding and model.regularizer and model.regularizer.needs_tokens:
            yield Problem(f"the regularizer `{model.regularizer.type}` needs word embeddings as wide as the encoder, "
                          f"{sizes.width}; these are {sizes.embedding} wide", place(table, "regularizer", "type"))


def _unfit_poolings(model: Model, table: Table, project: Path) -> Iterator[Problem]:
    """Yield the problems of the encoder with each pooling that a head uses; `table` is the model's."""
    told = set[str]()
    names = {pooling: name for name, pooling in model.poolings.items()}  # a head for each pooling
    for pooling, name in names.items() or [("", "")]:
        encoder = model.encoder.model_copy(update={"pooling": pooling}) if pooling else model.encoder
        try:
            encoder.check(project)
        except MtrunError as error:
            for problem in error.problems:
                is_of_head = bool(name) and bool(model.heads[name].pooling) and "pooler" in problem.message
                at = place(table, "heads", name, "pooling") if is_of_head else place(table, "encoder", "init")
                hint = f'heads.{name}.pooling = "mean"' if is_of_head else problem.hint
                if problem.message not in told:
                    yield Problem(problem.message, at,
                                  (*problem.notes, *([f"in {problem.place}"] if problem.place else [])), hint)
                told.add(problem.message)


def _head_misfits(name: str, model: Model, task: Task, table: Table) -> Iterator[Problem]:
    """Yield the problems of a head or a loss that is incompatible with its task."""
    head = model.heads[name]
    if task.sentences not in head.sentences:
        fit = [part for part in names(Head) if task.sentences in _class(Head, part).sentences]  # type: ignore[type-abstract]
        yield Problem(f"the head `{head.type}` takes {head.sentences[0]} sentence{'s' * (head.sentences[0] > 1)}, "
                      f"but an example of `{name}` has {task.sentences}", place(table, "heads", name, "type"),
                      (f"heads for `{name}`: {', '.join(fit)}",))
    if task.kind not in head.kinds:
        heads = {part: _class(Head, part) for part in names(Head)}  # type: ignore[type-abstract]
        fit = [part for part, cls in heads.items() if task.kind in cls.kinds and task.sentences in cls.sentences]
        yield Problem(f"the head `{head.type}` is not for `{name}`, which is a {task.kind} task",
                      place(table, "heads", name, "type"), (f"heads for `{name}`: {', '.join(fit)}",))
    if task.kind in head.loss.kinds and (misfit := head.loss.misfit(task)):
        field, wrong = misfit
        yield Problem(f"{wrong} (`{name}`)", place(table, "heads", name, "loss", field))
    if task.kind not in head.loss.kinds:
        fit = [part for part in names(Loss) if task.kind in _class(Loss, part).kinds]  # type: ignore[type-abstract]
        yield Problem(f"the loss `{head.loss.type}` is not for `{name}`, which is a {task.kind} task",
                      place(table, "heads", name, "loss"), (f"losses for `{name}`: {', '.join(fit)}",))


def _class(base: type[P], name: str) -> type[P]:
    cls = find(base, name)
    assert cls
    return cls


def misnamed_tasks(tree: Tree) -> Iterator[Problem]:
    """Yield the problem of each task or score in a node that the suite lacks, or that the member does not predict."""
    tasks = tree.tasks or {}
    for key, name in tree.ensemble.names_tasks().items() if tasks else ():
        field, _, entry = key.partition(".")
        fit = list(tasks if entry else measures(tasks))
        if name not in fit:
            default = type(tree.ensemble).model_fields[field].default
            known = [*fit, *([default] if isinstance(default, str) else [])]
            at = tree.table[field].keys_at[entry] if entry else place(tree.table, field)
            yield Problem(f"unknown task `{name}` in `{field}`", at, (f"`{field}` can name: {', '.join(known)}",),
                          did_you_mean(name, known))
            continue
        predicted = getattr(getattr(tree.ensemble, field)[entry], "predicted", None) if entry else None
        if name not in (predicted or [name]):
            yield Problem(f"this member does not predict `{name}`", place(tree.table, field, entry),
                          (f"it predicts: {', '.join(predicted or ())}",))


def misnamed_members(tree: Tree) -> Iterator[Problem]:
    """Yield the problem of each name in a node's table that is not the name of a member."""
    known = sorted({child.name for child in tree.ensemble.children()} - {""})
    for path, name in tree.ensemble.names_members().items():
        if name not in known:
            table: Table = tree.table
            for key in path[:-1]:
                table = table[key]
            note = f"its members are: {', '.join(known)}" if known else "none of its members has a name"
            yield Problem(f"unknown member `{name}` in `{'.'.join(path[:-1])}`", table.keys_at[path[-1]], (note,),
                          did_you_mean(name, known))
