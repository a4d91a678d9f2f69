"""What a suite of files says of one task: its type, files and columns."""

from __future__ import annotations

from typing import Annotated, NamedTuple, Self

from pydantic import Field, model_validator

from ...part import Part
from ...tasks.data import SPLITS, Kind, Task
from ...tasks.metric_types import Name as MetricName
from ...tasks.metric_types import wrong_metrics
from ._hub import FORM, HUB, HubName

Name = Annotated[str, Field(min_length=1)]
"""File in the suite's folder, or a pattern; or one of the Hugging Face hub."""


class Portion(Part):
    """A share of the rows of a file; which rows, the seed and the content of each row decide."""

    file: Name
    """File or pattern."""
    share: float = Field(gt=0, lt=1)
    """Share of its rows."""


class Fold(Part):
    """One of several equal parts of the training examples, for cross-validation."""

    fold: int = Field(ge=1)
    """Number of the fold, counted from 1."""
    folds: int = Field(ge=2)
    """Number of folds."""

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if self.fold > self.folds:
            raise ValueError(f"there is no `fold` {self.fold} of {self.folds}; they are counted from 1")
        return self


Names = Annotated[tuple[Name, ...], Field(min_length=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
"""Share of the training examples that becomes a split."""
Joined = Annotated[tuple[Name, ...], Field(min_length=2)]
"""Columns that are one sentence together."""


class Pattern(NamedTuple):
    """Files of a split as a suite names them."""

    name: str
    share: float = 1.0
    """Share of their rows."""


class Source(Part):
    """One task: its type, files and columns."""

    title: str
    """Column title in tables, such as SST."""
    kind: Kind
    """classification: one of several classes; binary: yes or no; multilabel: any of several classes; regression: a
    number."""
    classes: int = Field(default=2, ge=2)
    """Number of classes of a classification whose labels are the numbers 0 to classes - 1."""
    labels: tuple[str, ...] = Field(default=(), json_schema_extra={"later": True})
    """Labels as they stand in the files, such as `["politics", "sports"]`; of a binary task, that for no, then yes."""
    find_labels: bool = Field(default=False, exclude=True)
    """Whether the labels are those found in `train`, as if `labels` named them: numbers by size, words by the alphabet.
    Every command then reads the labels of `train`; name them where it is large."""
    low: float = 0.0
    """Lowest label of a regression."""
    high: float = 1.0
    """Highest label of a regression."""
    columns: tuple[Name | Joined, ...] = Field(min_length=1, max_length=2)
    """Columns of the sentence, or of the two sentences of a pair. A list in place of a column joins several to one
    sentence, each behind its name: `[["title", "body"]]` reads `title: … body: …`."""
    label: str | Joined
    """Column of the label. Of a multi-label task, the column of its labels, as a list or separated by `|`, `;` or `,`;
    or one column for each label, which holds 0 or 1."""
    id: str | None = None
    """Column of the example's id, unique within a split; by default `id`, and in files without such a column the
    number of the row, counted from 1 through all files of a split."""
    weight: str | None = Field(default=None, json_schema_extra={"later": True})
    """Column of numbers above 0 that the training examples' losses are multiplied by; other splits do not use it."""
    train: Name | Portion | Annotated[tuple[Name | Portion, ...], Field(min_length=1)]
    """File of the training examples; or several, or a pattern such as `train-*.parquet`; a table such as
    `{file = "nli.jsonl", share = 0.1}` stands for a share of a file's rows."""
    dev: Name | Names | Share | Fold
    """File of the dev examples, on which epochs, members and weights are chosen; or their share of `train`, as 0.1; or
    a fold of `train`, as `{fold = 1, folds = 5}`."""
    test: Name | Names | Share | None = None
    """File of the test examples, on which nothing is chosen; labels may be missing. Or their share of `train`."""
    header: tuple[str, ...] = Field(default=(), json_schema_extra={"later": True})
    """Names of the columns of tables without a header line; a first line that has one of these names is one."""
    quotes: bool = Field(default=True, json_schema_extra={"later": True})
    """Whether cells of tables may be in double quotes; `false` where a quote is a character like any other."""
    group: str | None = Field(default=None, json_schema_extra={"later": True})
    """Column whose equal values stay in one split where a share is split off; by default equal sentences do."""
    split_seed: int = Field(default=0, json_schema_extra={"later": True})
    """Seed of the splits that are shares or folds, and of the shares of files."""
    metrics: tuple[MetricName, ...] = Field(default=(), json_schema_extra={"later": True})
    """Metrics, such as `["macro_f1", "accuracy"]`; the first one leads: it is the task's column, chooses epochs and
    members, and counts in the overall. By default accuracy; Pearson's r for a regression."""
    counts: float | bool = Field(default=1.0, ge=0, json_schema_extra={"later": True})
    """Weight of the task in the overall; `false` for an auxiliary task, which is trained and shown but not counted."""

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"`low` must be below `high`; they are {self.low:g} and {self.high:g}")
        return self

    @model_validator(mode="after")
    def _labels_fit_the_kind(self) -> Self:
        if isinstance(self.label, tuple):
            self._check_label_columns(self.label)
        if self.find_labels and (self.kind == "regression" or isinstance(self.label, tuple)):
            raise ValueError("`find_labels` is for one column of labels of a task with classes")
        if not self.labels:
            if not self.find_labels and self.kind == "multilabel" and isinstance(self.label, str):
                raise ValueError('a multilabel task needs `labels`, such as `["politics", "sports"]`, or one column '
                                 'for each label: `label = ["politics", "sports"]`')
            return self
        if self.kind == "regression":
            raise ValueError("`labels` are words, and a regression has numbers; leave them out")
        if any(not label or label != label.strip() for label in self.labels):
            raise ValueError("`labels` has a label that is empty or has blanks at an end; cells are read without them")
        if repeated := [one for one in self.labels if self.labels.count(one) > 1]:
            raise ValueError(f"`labels` has `{repeated[0]}` more than once")
        count = len(self.labels)
        if count < 2 or (self.kind == "binary" and count > 2) or self.classes not in (2, count):
            wanted = "2" if self.kind == "binary" else f"{self.classes}" if self.classes > 2 else "at least 2"
            raise ValueError(f"`labels` has {count} labels; expected {wanted}")
        return self

    def _check_label_columns(self, columns: tuple[str, ...]) -> None:
        """Raise ValueError where there cannot be one column for each label."""
        if self.kind != "multilabel":
            raise ValueError(f"`label` names {len(columns)} columns; those are for a task of kind multilabel")
        if repeated := [column for column in columns if columns.count(column) > 1]:
            raise ValueError(f"`label` has `{repeated[0]}` more than once")
        if self.labels and len(self.labels) != len(columns):
            raise ValueError(f"`labels` has {len(self.labels)} labels; expected {len(columns)}, one for each column "
                             "of `label`")

    @model_validator(mode="after")
    def _metrics_fit_the_kind(self) -> Self:
        if wrong := wrong_metrics(self.kind, self.metrics):
            raise ValueError(wrong)
        return self

    @model_validator(mode="after")
    def _shares_leave_training_examples(self) -> Self:
        if sum(self.shares().values()) >= 1:
            raise ValueError("`dev` and `test` are shares of `train`, which must leave some of it: together below 1")
        return self

    @model_validator(mode="after")
    def _hub_names_are_complete(self) -> Self:
        for split in SPLITS:
            for pattern in self.patterns(split):
                if pattern.name.startswith(HUB) and not HubName.parsed(pattern.name):
                    raise ValueError(f"`{split}` names `{pattern.name}`; a file of the hub is called {FORM}")
        return self

    @property
    def sentences(self) -> tuple[tuple[str, ...], ...]:
        """The columns of each sentence."""
        return tuple((one,) if isinstance(one, str) else one for one in self.columns)

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns of the label."""
        return (self.label,) if isinstance(self.label, str) else self.label

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the labels: those of their columns where there is one for each."""
        return self.labels or (self.label if isinstance(self.label, tuple) else ())

    def shares(self) -> dict[str, float]:
        """Return the share of the training examples of each split that is one."""
        return {split: share for split in ("dev", "test") if isinstance(share := getattr(self, split), float | int)}

    def split_off(self) -> tuple[str, ...]:
        """Return the splits that are made of training examples."""
        return (*(["dev"] if isinstance(self.dev, Fold) else []), *self.shares())

    def shown_shares(self) -> str:
        """Return the shares as text, as in `dev = 0.1 and test = 0.2`."""
        fold = [f"dev = fold {self.dev.fold} of {self.dev.folds}"] if isinstance(self.dev, Fold) else []
        return " and ".join([*fold, *(f"{split} = {share:g}" for split, share in self.shares().items())])

    def patterns(self, split: str) -> tuple[Pattern, ...]:
        """Return the files and patterns of a split."""
        value = getattr(self, split)
        items = value if isinstance(value, tuple) else (value,) if isinstance(value, str | Portion) else ()
        return tuple(Pattern(item.file, item.share) if isinstance(item, Portion) else Pattern(item) for item in items)

    def task(self) -> Task:
        """Return the task without its files and columns."""
        return Task(title=self.title, kind=self.kind, classes=len(self.names) or self.classes, low=self.low,
                    high=self.high, sentences=2 if len(self.columns) == 2 else 1, labels=self.names,
                    metrics=self.metrics, counts=float(self.counts))
