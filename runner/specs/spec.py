"""What a spec means once resolved: a leaf, a tree of nodes, a stored run, a predictions file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from ..errors import Place
from ..files import sha256
from ..part import Member, Part
from ..parts.combiners import Combiner
from ..parts.encoders import Encoder
from ..parts.ensembles import Ensemble
from ..parts.heads import Head
from ..parts.optimizers import Optimizer
from ..parts.regularizers import Regularizer
from ..parts.schedules import Schedule
from ..parts.suites import Suite
from .toml import Table


class Train(Part):
    """How long, on what and in which arithmetic a leaf is trained."""

    tasks: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Tasks that are trained, one batch of each a step; left out: all that have a head."""
    epochs: int = Field(default=10, ge=1)
    """Passes; after each the dev splits are scored."""
    epoch: Literal["shortest", "longest"] = "shortest"
    """An epoch ends when the shortest task is used up, or when the longest is (shorter ones start again)."""
    steps: int | None = Field(default=None, ge=1)
    """Steps of an epoch, in place of `epoch`."""
    batch_size: int = Field(default=8, ge=1)
    """Examples of each task in one step."""
    seed: int = Field(default=11711, ge=0, lt=2**32)
    """Decides weights drawn, orders and dropout."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """Arithmetic of the encoder's matrix products; weights are kept in fp32. `auto` becomes, when the plan is made,
    bf16 where the leaf's device computes it and fp32 where it would be emulated."""
    select: Literal["best", "last"] = "best"
    """Which epoch's weights are kept: the best dev overall of the trained tasks (ties to the earlier), or the last."""


class Resources(Part):
    """What one leaf may use while it is trained; not part of its id."""

    threads: int = Field(default=1, ge=1)
    """Threads of one worker; a fixed number, so that `-j` never changes a byte."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`; `auto` takes a GPU where there is one."""
    checkpoint_seconds: float = Field(default=60.0, ge=0)
    """Most seconds of work that a crash can cost, besides what the writing of a checkpoint itself takes."""
    keep_weights: bool = True
    """Keep the trained weights in the registry, not the predictions alone; `mtrun rm --weights` drops them later."""
    gpus: int | None = Field(default=None, ge=0)
    """GPUs of one leaf, which share each batch; left out: one where the machine has any, none asked of a cluster."""
    cpus: int | None = Field(default=None, ge=1)
    """Cores that are asked of a cluster; left out: as many as threads, for each GPU."""
    memory: int | None = Field(default=None, ge=1)
    """Megabytes of main memory that are asked of a cluster."""
    minutes: int | None = Field(default=None, ge=1)
    """Minutes after which a cluster may stop a leaf, which then goes on from its checkpoint in a new job."""
    partition: str | None = None
    """Queue of a cluster."""
    account: str | None = None
    """Whom a cluster charges."""
    extra: tuple[str, ...] = ()
    """Options of the cluster's own for a job, such as `--constraint=a100`."""

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
            raise ValueError(f"there is no device `{device}`; there are auto, cpu, cuda, cuda:0, cuda:1 and so on")
        return device

    @property
    def processes(self) -> int:
        """How many processes train the leaf, each on a GPU of its own; one where the device is told."""
        return (self.gpus or 1) if self.device in ("auto", "cuda") else 1

    @property
    def cores(self) -> int:
        """How many cores the leaf keeps busy."""
        return self.cpus or self.threads * self.processes


class Teacher(Part):
    """Has a model learn from what other models say of the training sentences (Hinton et al. 2015, arXiv:1503.02531).

    A task's loss is `labels` times that of its labels plus the rest times that of the teacher's scores t: with scores
    s and temperature T, T^2 cross-entropy(softmax(t / T), softmax(s / T)) of a classification, T^2 loss(s / T,
    sigmoid(t / T)) of a binary task, and loss(s, t) of a regression, t brought to the labels' scale. `loss` is the
    head's own, for which the teacher's word takes the place of the label.
    """

    spec: Member
    """What teaches: a model or an ensemble, which predicts all trained tasks and keeps its weights."""
    labels: float = Field(default=0.5, ge=0, le=1)
    """Weight of the labels' loss; the teacher's has the rest."""
    temperature: float = Field(default=2.0, gt=0, le=1000)
    """How much the probabilities of a classification and of a binary task are softened, the teacher's and its own."""
    unlabelled: dict[str, str] = Field(default={})
    """Task -> a text file, from the project's folder, of more sentences to learn from: one a line, of a pair the two
    with a tab between them."""

    def inputs(self, project: Path) -> dict[str, str]:
        """Return the sha256 of each file of unlabelled sentences. Raise StorageError where one cannot be read."""
        return {file: sha256(project / file) for file in sorted(set(self.unlabelled.values()))}


class Soup(Part):
    """The mean of the weights of several runs of one shape (Wortsman et al. 2022, arXiv:2203.05482)."""

    members: tuple[Member, ...] = Field(min_length=1)
    """Models, sweeps, or runs as `run:ID`, best of one starting point: equal ones but for how they were trained."""
    recipe: Literal["uniform", "greedy"] = "uniform"
    """All members; or, from the best on dev to the worst, each with which the mean's dev overall does not fall."""


class Track(Part):
    """Where else the history of a run is written as it grows; not part of its id, and nothing is sent anywhere."""

    tensorboard: bool = False
    """Write event files into `tracking/tensorboard/`; needs `pip install 'mtrun[tensorboard]'`."""
    mlflow: bool = False
    """Write into the local store `tracking/mlflow.db`; needs `pip install 'mtrun[mlflow]'`."""


class Model(Part):
    """A leaf, resolved: everything that decides what is trained."""

    suite: Suite = Field(exclude=True)
    """The tasks and their data; its content is in the id, not where it lies."""
    encoder: Encoder
    """From sentences to embeddings."""
    heads: dict[str, Head] = Field(min_length=1)
    """From embeddings to scores, one for each task."""
    combiner: Combiner
    """From the gradients of the tasks to one step."""
    optimizer: Optimizer
    """From gradients to new weights."""
    schedule: Schedule
    """The learning rate over the run."""
    train: Train = Train()
    """How long, on what and in which arithmetic."""
    teacher: Teacher | None = Field(default=None, json_schema_extra={"later": True})
    """What teaches the model besides the labels; left out: nothing does."""
    start: Member | None = Field(default=None, json_schema_extra={"later": True})
    """The model whose trained weights this one begins with, the encoder's and those of each head that is the same
    (Phang et al. 2018, arXiv:1811.01088; Liu et al. 2019, arXiv:1901.11504); left out: what `encoder.init` says, and
    new heads."""
    regularizer: Regularizer | None = Field(default=None, json_schema_extra={"later": True})
    """How the losses of a step come about; left out: by one pass, with nothing added."""
    resources: Resources = Field(default=Resources(), exclude=True)
    """What a worker may use."""
    track: Track = Field(default=Track(), exclude=True)
    """Where else the history is written."""

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the trained tasks, sorted, since the order of keys in a spec must not change a result."""
        return tuple(sorted(self.train.tasks or self.heads))

    @property
    def joint(self) -> dict[str, int]:
        """The tasks whose two sentences are read as one, and in how many orders."""
        return {name: head.orders for name, head in self.heads.items() if head.joint}

    @property
    def needs(self) -> tuple[Any, ...]:
        """The nodes that the model is made from."""
        return tuple(node for node in (self.teacher.spec if self.teacher else None, self.start) if node)

    def inputs(self, project: Path) -> dict[str, str]:
        """Return the sha256 of each file, besides the data, that decides the result.

        Raise DataError where the encoder's are not there, StorageError where one cannot be read.
        """
        return self.encoder.inputs(project) | (self.teacher.inputs(project) if self.teacher else {})

    def with_precision(self, precision: Literal["fp32", "bf16"]) -> Model:
        """Return the same model in another arithmetic."""
        return self.model_copy(update={"train": self.train.model_copy(update={"precision": precision})})

    def summary(self) -> str:
        """Return what the model is in a few words, for a table."""
        also = [*(["student"] if self.teacher else []), *(["started"] if self.start else []),
                *([self.regularizer.type] if self.regularizer else [])]
        return "; ".join([*also, self._summary()])

    def _summary(self) -> str:
        trained = [(name, self.heads[name]) for name in self.trained]
        if len(trained) == 1:
            name, head = trained[0]
            return f"{name} only: {head.type} {head.loss.type}"
        return f"{self.combiner.type}; {', '.join(f'{head.type} {head.loss.type}' for _, head in trained)}"


class SoupModel(Model):
    """A model whose weights are a mean of others'; all besides `soup` is that of the member with the least id."""

    soup: Soup
    """Whose weights, and which of them."""

    @classmethod
    def of(cls, ground: Model, soup: Soup) -> SoupModel:
        """Return a soup of members of which one is `ground`."""
        aside = dict.fromkeys(("teacher", "start", "regularizer"))  # a soup does not train
        return cls(**{name: getattr(ground, name) for name in Model.model_fields} | aside, soup=soup)

    @property
    def needs(self) -> tuple[Any, ...]:
        """The members."""
        return self.soup.members

    def summary(self) -> str:
        """Return the recipe, for a table."""
        return f"{self.soup.recipe} soup of {len(self.soup.members)}"


@dataclass(frozen=True)
class Leaf(Member):
    """A run that is trained or made of others, or found in the registry."""

    name: str
    model: Model
    table: Table
    """The resolved spec with the place of each value."""
    member_places: tuple[Place, ...] = ()
    """Where each node that the model needs is named."""

    @property
    def place(self) -> Place:
        """Where the spec begins."""
        return self.table.place

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the suite's tasks."""
        return tuple(self.model.suite.meanings())

    @property
    def predicted(self) -> tuple[str, ...]:
        """Names of the tasks that it predicts."""
        return tuple(self.model.heads)


@dataclass(frozen=True)
class Tree(Member):
    """A node of an ensemble; an inline node has no name."""

    name: str
    ensemble: Ensemble
    table: Table
    """The node's TOML table, with the place of each value."""
    member_places: tuple[Place, ...]
    """Where each member is named, in the order in which the spec names them."""

    @property
    def place(self) -> Place:
        """Where the node begins."""
        return self.table.place

    @cached_property
    def tasks(self) -> tuple[str, ...] | None:
        """Names of the suite's tasks; None where all leaves are stored."""
        return next((child.tasks for child in self.ensemble.children() if child.tasks is not None), None)

    @cached_property
    def predicted(self) -> tuple[str, ...] | None:
        """Names of the tasks that some member predicts; None where that is not known."""
        pairs = zip(self.ensemble.children(), self.ensemble.roles(), strict=True)
        found = [(role,) if role else child.predicted for child, role in pairs]
        return None if None in found else tuple(dict.fromkeys(task for tasks in found for task in tasks or ()))


@dataclass(frozen=True)
class Stored(Member):
    """A finished run that is named by its id."""

    id: str
    place: Place
    tasks: ClassVar[None] = None
    predicted: ClassVar[None] = None

    @property
    def name(self) -> str:  # type: ignore[override]
        """What a spec calls it."""
        return f"run:{self.id}"


@dataclass(frozen=True)
class Filed(Member):
    """A predictions file of another program."""

    name: str
    path: Path
    place: Place
    """Where a spec names it."""
    shown: str
    """The file's name as places show it."""
    tasks: ClassVar[None] = None
    predicted: ClassVar[None] = None


Node = Leaf | Tree | Stored | Filed

Spec = Leaf | Tree
