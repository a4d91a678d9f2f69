"""Resolved specs: leaves, ensembles, stored runs and predictions files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from ..errors import Place
from ..files import sha256
from ..lazy import deferred
from ..part import Member, Part
from ..parts.adapters import Adapter
from ..parts.combiners import Combiner
from ..parts.encoders import Encoder
from ..parts.ensembles import Ensemble
from ..parts.heads import Head
from ..parts.optimizers import Optimizer
from ..parts.regularizers import Regularizer
from ..parts.schedules import Schedule
from ..parts.suites import Suite
from ..tasks.data import Task
from ..tasks.metrics import OVERALL
from .toml import Table

with deferred("numpy"):
    from ..parts.combiners.sum import Sum

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer


class Train(Part):
    """Length, tasks, batches, seed and precision of a leaf's training."""

    tasks: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Tasks to train, one batch of each per step; left out: all that have a head."""
    epochs: int = Field(default=10, ge=1)
    """Number of epochs; after each, the dev splits are scored."""
    epoch: Literal["shortest", "longest"] = "shortest"
    """An epoch ends when the shortest task is used up, or when the longest is (shorter ones start again)."""
    steps: int | None = Field(default=None, ge=1)
    """Steps per epoch, in place of `epoch`."""
    batch_size: int = Field(default=8, ge=1)
    """Examples of each task per step."""
    seed: int = Field(default=11711, ge=0, lt=2**32)
    """Seed of initial weights, order of examples and dropout."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """Precision of the encoder's matrix products; weights are kept in fp32. `auto` becomes, when the plan is made, bf16
    where the leaf's device supports it and fp32 where it would be emulated."""
    select: Literal["best", "last"] = "best"
    """Which epoch's weights are kept: the best on dev by `select_by` (ties to the earlier), or the last."""
    select_by: str = Field(default=OVERALL, json_schema_extra={"later": True})
    """Score that selects the epoch: the overall of the trained tasks, a task's, or a further metric of a task, such as
    `sentiment.macro_f1`."""


class Resources(Part):
    """Threads, devices and cluster resources for training a leaf; not part of its id."""

    threads: int = Field(default=1, ge=1)
    """Threads of one worker; a fixed number, so that results do not depend on `-j`."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`; `auto` takes a GPU where there is one."""
    checkpoint_seconds: float = Field(default=60.0, ge=0)
    """Maximal seconds of work lost by a crash, besides the time to write a checkpoint."""
    keep_weights: bool = True
    """Keep the trained weights in the registry besides the predictions; `mtrun rm --weights` removes them later."""
    gpus: int | None = Field(default=None, ge=0)
    """GPUs of one leaf, which share each batch; left out: one if the machine has any, none requested from a cluster."""
    cpus: int | None = Field(default=None, ge=1)
    """Cores requested from a cluster; left out: the number of threads for each GPU."""
    memory: int | None = Field(default=None, ge=1)
    """Megabytes of main memory requested from a cluster."""
    minutes: int | None = Field(default=None, ge=1)
    """Time limit of a cluster's job in minutes; a stopped leaf resumes from its checkpoint in a new job."""
    partition: str | None = None
    """Partition (queue) of a cluster."""
    account: str | None = None
    """Account that a cluster charges."""
    extra: tuple[str, ...] = ()
    """Further options for a cluster's job, such as `--constraint=a100`."""

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
            raise ValueError(f"there is no device `{device}`; there are auto, cpu, cuda, cuda:0, cuda:1 and so on")
        return device

    @property
    def processes(self) -> int:
        """Number of processes that train the leaf, each on its own GPU; one if `device` is a single device."""
        return (self.gpus or 1) if self.device in ("auto", "cuda") else 1

    @property
    def cores(self) -> int:
        """Number of cores that the leaf uses."""
        return self.cpus or self.threads * self.processes


class Teacher(Part):
    """Knowledge distillation from the predictions of other models (Hinton et al. 2015, arXiv:1503.02531).

    The loss of a task is `labels` times the loss on labels plus 1 - `labels` times the loss on the teacher's scores
    t. With the student's scores s and temperature T, the latter is T^2 cross-entropy(softmax(t / T), softmax(s /
    T)) for a classification, T^2 loss(s / T, sigmoid(t / T)) for a binary or multi-label task, and loss(s, t) for a
    regression, t mapped to the labels' scale. `loss` is the head's own loss, with the teacher's score in place of
    the label.
    """

    spec: Member
    """Teacher: a model or an ensemble that predicts all trained tasks and keeps its weights."""
    labels: float = Field(default=0.5, ge=0, le=1)
    """Weight of the loss on labels; the loss on the teacher's scores has the rest."""
    temperature: float = Field(default=2.0, gt=0, le=1000)
    """Temperature of the teacher's and the student's probabilities in classification and binary tasks."""
    unlabelled: dict[str, str] = Field(default={})
    """Task -> a text file, relative to the project's folder, of additional sentences: one per line, the two of a pair
    separated by a tab."""

    def inputs(self, project: Path) -> dict[str, str]:
        """Return the sha256 of each file of unlabelled sentences. Raise StorageError where one cannot be read."""
        return {file: sha256(project / file) for file in sorted(set(self.unlabelled.values()))}


class Soup(Part):
    """Mean of the weights of several runs with equal shapes (Wortsman et al. 2022, arXiv:2203.05482)."""

    members: tuple[Member, ...] = Field(min_length=1)
    """Models, sweeps, or runs as `run:ID`, preferably fine-tuned from the same weights with other settings."""
    recipe: Literal["uniform", "greedy"] = "uniform"
    """All members; or greedily, from best to worst on dev, each that does not lower the mean's dev overall."""


class Track(Part):
    """Trackers that the history of a run is also written to, on this machine only; not part of its id."""

    tensorboard: bool = False
    """Write event files into `tracking/tensorboard/`; needs `pip install 'mtrun[tensorboard]'`."""
    mlflow: bool = False
    """Write into the local store `tracking/mlflow.db`; needs `pip install 'mtrun[mlflow]'`."""


class Model(Part):
    """Resolved spec of a leaf: everything that decides its training."""

    suite: Suite = Field(exclude=True)
    """Tasks and their data; the id depends on its content, not on its location."""
    encoder: Encoder
    """Module from sentences to embeddings."""
    heads: dict[str, Head] = Field(min_length=1)
    """Modules from embeddings to scores, one for each task."""
    combiner: Combiner = Sum()
    """Combination of the tasks' gradients to one gradient; left out: their sum."""
    optimizer: Optimizer
    """Update of the weights by their gradients."""
    schedule: Schedule
    """Factor of the learning rate over the steps."""
    train: Train = Train()
    """Length, tasks, batches, seed and precision of training."""
    teacher: Teacher | None = Field(default=None, json_schema_extra={"later": True})
    """Teacher for knowledge distillation; left out: the model learns from labels only."""
    start: Member | None = Field(default=None, json_schema_extra={"later": True})
    """Model whose trained weights initialize this one: those of the encoder and of each equal head (Phang et al. 2018,
    arXiv:1811.01088; Liu et al. 2019, arXiv:1901.11504); left out: the weights of `encoder.init`, and new heads."""
    regularizer: Regularizer | None = Field(default=None, json_schema_extra={"later": True})
    """Regularization of the losses of a step; left out: the losses of one forward pass."""
    adapter: Adapter | None = Field(default=None, json_schema_extra={"later": True})
    """Trained parameters that are added to the encoder, for all tasks or for each; left out: the encoder as it is."""
    resources: Resources = Field(default=Resources(), exclude=True)
    """Threads, devices and cluster resources."""
    track: Track = Field(default=Track(), exclude=True)
    """Trackers that the history is also written to."""

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the trained tasks, sorted, so that the order of keys in a spec changes no result."""
        return tuple(sorted(self.train.tasks or self.heads))

    @property
    def joint(self) -> dict[str, int]:
        """Tasks whose two sentences are encoded jointly (cross-encoder), with the number of orders."""
        return {name: head.orders for name, head in self.heads.items() if head.joint}

    @property
    def poolings(self) -> dict[str, str]:
        """Pooling of each task, if a head has another one than the encoder; empty otherwise."""
        default = getattr(self.encoder, "pooling", "")
        poolings = {name: head.pooling or default for name, head in self.heads.items()}
        return poolings if {*poolings.values()} != {default} else {}

    def build_encoder(self, tokenizer: Tokenizer, project: Path) -> torch.nn.Module:
        """Build the encoder with the poolings of all heads."""
        poolings = sorted({*self.poolings.values()})
        if not poolings:
            return self.encoder.build(tokenizer, project)
        encoder = self.encoder.model_copy(update={"pooling": poolings[0]})  # that of the spec may be used by no head
        build: Callable[..., torch.nn.Module] = encoder.build
        return build(tokenizer, project, tuple(poolings))

    @property
    def stores_encoder(self) -> bool:
        """Whether a run stores the encoder's own weights; without, they are those of the files in `inputs`."""
        is_frozen = self.adapter is not None and (self.adapter.freezes_encoder or self.encoder.freeze)
        return not (is_frozen and self.encoder.is_pretrained and self.start is None)

    @property
    def needs(self) -> tuple[Any, ...]:
        """Nodes that are needed for training: teacher and start."""
        return tuple(node for node in (self.teacher.spec if self.teacher else None, self.start) if node)

    def inputs(self, project: Path) -> dict[str, str]:
        """Return the sha256 of each file, besides the data, that decides the result.

        Raise DataError where the encoder's are missing, StorageError where one cannot be read.
        """
        return self.encoder.inputs(project) | (self.teacher.inputs(project) if self.teacher else {})

    def with_precision(self, precision: Literal["fp32", "bf16"]) -> Model:
        """Return a copy of the model with another precision."""
        return self.model_copy(update={"train": self.train.model_copy(update={"precision": precision})})

    def summary(self) -> str:
        """Describe the model in a few words, for a table."""
        also = [*(["student"] if self.teacher else []), *(["started"] if self.start else []),
                *([self.regularizer.type] if self.regularizer else []), *([self.adapter.type] if self.adapter else [])]
        return "; ".join([*also, self._summary()])

    def _summary(self) -> str:
        trained = [(name, self.heads[name]) for name in self.trained]
        if len(trained) == 1:
            name, head = trained[0]
            return f"{name} only: {head.type} {head.loss.type}"
        return f"{self.combiner.type}; {', '.join(f'{head.type} {head.loss.type}' for _, head in trained)}"


class SoupModel(Model):
    """Model whose weights are the mean of its members'; its other fields are those of the member with the least id."""

    soup: Soup
    """Members, and how they are selected."""

    @classmethod
    def of(cls, ground: Model, soup: Soup) -> SoupModel:
        """Return a soup with the fields of `ground`, one of its members."""
        aside = dict.fromkeys(("teacher", "start", "regularizer"))  # a soup does not train
        return cls(**{name: getattr(ground, name) for name in Model.model_fields} | aside, soup=soup)

    @property
    def stores_encoder(self) -> bool:
        """Whether the encoder's own weights are stored: always, since members may have trained them."""
        return True

    @property
    def needs(self) -> tuple[Any, ...]:
        """The members."""
        return self.soup.members

    def summary(self) -> str:
        """Describe the recipe, for a table."""
        return f"{self.soup.recipe} soup of {len(self.soup.members)}"


@dataclass(frozen=True)
class Leaf(Member):
    """Leaf of a plan: a model or a soup with its resolved table."""

    name: str
    model: Model
    table: Table
    """The resolved spec with the place of each value."""
    member_places: tuple[Place, ...] = ()
    """Places of the references to the nodes that the model needs."""

    @property
    def place(self) -> Place:
        """Place where the spec begins."""
        return self.table.place

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The suite's tasks by name."""
        return self.model.suite.meanings()

    @property
    def predicted(self) -> tuple[str, ...]:
        """Names of the tasks that the leaf predicts."""
        return tuple(self.model.heads)


@dataclass(frozen=True)
class Tree(Member):
    """Ensemble in a plan; an inline node has an empty name."""

    name: str
    ensemble: Ensemble
    table: Table
    """The node's TOML table, with the place of each value."""
    member_places: tuple[Place, ...]
    """Places of the references to the members, in the order of the spec."""

    @property
    def place(self) -> Place:
        """Place where the node begins."""
        return self.table.place

    @cached_property
    def tasks(self) -> Mapping[str, Task] | None:
        """The suite's tasks by name; None where all leaves are stored."""
        return next((child.tasks for child in self.ensemble.children() if child.tasks is not None), None)

    @cached_property
    def predicted(self) -> tuple[str, ...] | None:
        """Names of the tasks that some member predicts; None where these are not known."""
        pairs = zip(self.ensemble.children(), self.ensemble.roles(), strict=True)
        predicted = [(role,) if role else child.predicted for child, role in pairs]
        return None if None in predicted else tuple(dict.fromkeys(task for tasks in predicted for task in tasks or ()))


@dataclass(frozen=True)
class Stored(Member):
    """Finished run, referred to by its id."""

    id: str
    place: Place
    tasks: ClassVar[None] = None
    predicted: ClassVar[None] = None

    @property
    def name(self) -> str:  # type: ignore[override]
        """The run as a spec refers to it."""
        return f"run:{self.id}"


@dataclass(frozen=True)
class Filed(Member):
    """Predictions file of another program as a member."""

    name: str
    path: Path
    place: Place
    """Place of the reference to it."""
    shown: str
    """The file's name for places."""
    tasks: ClassVar[None] = None
    predicted: ClassVar[None] = None


Node = Leaf | Tree | Stored | Filed

Spec = Leaf | Tree


def leaves(node: Node) -> Iterator[Leaf | Stored]:
    """Yield the models and stored runs of a node: itself, or those in a tree, the highest first."""
    seen, todo = {id(node)}, [node]
    while todo:
        node = todo.pop(0)
        if isinstance(node, Leaf | Stored):
            yield node
        new = [child for child in node.ensemble.children() if id(child) not in seen] if isinstance(node, Tree) else []
        seen |= {id(child) for child in new}
        todo += new
