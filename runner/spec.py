"""What a spec means once resolved: a leaf, a tree of nodes, a stored run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from .combiners import Combiner
from .encoders import Encoder
from .ensembles import Ensemble
from .errors import Place
from .heads import Head
from .optimizers import Optimizer
from .parts import Member, Part
from .schedules import Schedule
from .suites import Suite
from .toml import Table


class Train(Part):
    """How long, on what and in which arithmetic a leaf is trained."""

    tasks: tuple[str, ...] | None = None
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
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the encoder's matrix products; weights are kept in fp32."""
    select: Literal["best", "last"] = "best"
    """Which epoch's weights are kept: the best dev overall of the trained tasks (ties to the earlier), or the last."""


class Resources(Part):
    """What one leaf may use while it is trained; not part of its id."""

    threads: int = Field(default=1, ge=1)
    """Threads of one worker; a fixed number, so that `-j` never changes a byte."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`; `auto` takes a GPU where there is one."""


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
    resources: Resources = Field(default=Resources(), exclude=True)
    """What a worker may use."""

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the trained tasks, in the order of the suite's heads."""
        return self.train.tasks or tuple(self.heads)

    def summary(self) -> str:
        """Return what the model is in a few words, for a table."""
        heads = [f"{name}: {head.type} {head.loss.type}" for name, head in self.heads.items() if name in self.trained]
        return f"{self.combiner.type}; {', '.join(heads)}"


@dataclass(frozen=True)
class Leaf(Member):
    """A run that is trained, or found in the registry."""

    name: str
    model: Model
    table: Table
    """The resolved spec with the place of each value."""


@dataclass(frozen=True)
class Tree(Member):
    """A node of an ensemble; an inline node has no name."""

    name: str
    node: Ensemble
    place: Place


@dataclass(frozen=True)
class Stored(Member):
    """A finished run that is named by its id."""

    id: str
    place: Place


Node = Leaf | Tree | Stored
Spec = Leaf | Tree
