"""Results: the scored tree of one spec, as published.

`results/<profile>/<name>.json` is one `Result`. It contains no times, so that equal builds write equal bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from ..errors import Place, Problem, RegistryError
from ..part import StrictRecord
from ..tasks.data import Kind
from ..tasks.metric_types import METRICS, USUAL, Metric, wrong_metrics
from ..tasks.metrics import OVERALL, Scores, columns

COSTS = "costs.json"
"""Costs of the models: the only published file that differs between equal builds."""

SIGNIFICANCE = "significance.json"
"""Confidence intervals and tests of the published scores."""

_Hash = Annotated[str, Field(pattern="^[0-9a-f]{12,64}$")]


class Column(StrictRecord):
    """A task as a column of a table."""

    name: str
    title: str
    kind: Kind
    metrics: tuple[str, ...] = ()
    """Names of the metrics, the leading one first; none for the usual one."""
    counts: float = Field(default=1.0, ge=0)
    """Weight in the overall."""

    @field_validator("metrics")
    @classmethod
    def _are_known(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if wrong := wrong_metrics(info.data.get("kind", ""), names):
            raise ValueError(wrong)
        return names

    def scored(self) -> dict[str, Metric]:
        """Return the metrics by key: the leading one under the task's name, others as `task.metric`."""
        return columns(self.name, self.kind, self.metrics)

    def titles(self) -> dict[str, str]:
        """Return the titles of the metrics by key; that of a task's usual metric is the task's own."""
        usual = METRICS[USUAL[self.kind]]
        return {key: self.title if metric is usual and key == self.name else f"{self.title} {metric.title}"
                for key, metric in self.scored().items()}


class ResultNode(StrictRecord):
    """One node of a scored tree."""

    name: str = ""
    """The spec's name; empty for an inline table."""
    id: _Hash
    kind: Literal["leaf", "ensemble"]
    what: str
    """Short description of the node."""
    digest: str = Field(default="", pattern="^([0-9a-f]{12})?$")
    """Digest of the predictions of a leaf, as `Run.digest`; empty in results of older versions."""
    parameters: int | None = Field(default=None, ge=0)
    """Number of parameters of a leaf."""
    apparent: bool = False
    """Whether dev labels were used to choose something in this node itself: an epoch, members, weights."""
    scores: dict[str, dict[str, float | None]]
    """Split -> column -> score, as `tasks.metrics.score` returns them."""
    honest: dict[str, float | None] | None = None
    """Cross-fitted dev scores (`results.crossfit`), if something was chosen on dev in the node or below it."""
    chosen: tuple[int, ...] | None = None
    """Positions of the members that a rule chose, best first."""
    roles: tuple[str, ...] = ()
    """Role of each member, such as the task of a route."""
    members: tuple[ResultNode, ...] = ()

    @model_validator(mode="after")
    def _agrees(self) -> ResultNode:
        if (self.kind == "leaf") != (not self.members):
            raise ValueError("an ensemble has members and a leaf has none")
        if self.roles and len(self.roles) != len(self.members):
            raise ValueError("there are not as many roles as members")
        if not set(self.chosen or ()) <= set(range(len(self.members))):
            raise ValueError("a chosen member is not there")
        if self.digest and self.members:
            raise ValueError("an ensemble has the digests of its leaves and none of its own")
        return self

    def nodes(self) -> Iterator[ResultNode]:
        """Yield the node and all below it."""
        below = [self]
        while below:
            node = below.pop()
            yield node
            below += reversed(node.members)

    def leaves(self) -> Iterator[ResultNode]:
        """Yield the leaves at and below the node."""
        return (node for node in self.nodes() if node.kind == "leaf")

    @cached_property
    def answer(self) -> str:
        """Identity of the replica: a hash of the digests of its leaves.

        Two nodes of the same id and answer must have the same scores. If a leaf has no digest, the scores are hashed
        instead, so that results of older versions count as replicas and not as contradictions.
        """
        digests = [leaf.digest for leaf in self.leaves()]
        known: Any = digests if all(digests) else [self.scores, self.honest]
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]

    def shown(self) -> Scores:
        """Return the scores to show and rank by: honest dev scores if there are any, else the apparent ones."""
        return self.scores | ({"dev": dict(self.honest)} if self.honest else {})

    def used(self) -> list[tuple[str, ResultNode]]:
        """Return the members that the node uses, with their roles; those chosen by a rule best first."""
        roles = self.roles or ("",) * len(self.members)
        places = range(len(self.members)) if self.chosen is None else self.chosen
        return [(roles[place], self.members[place]) for place in places]

    def unused(self) -> list[ResultNode]:
        """Return the members not chosen by a rule."""
        return [] if self.chosen is None else [m for i, m in enumerate(self.members) if i not in self.chosen]

    def is_apparent(self) -> bool:
        """Return whether something was chosen on dev labels in the node or below it."""
        return any(node.apparent or node.chosen is not None for node in self.nodes())


class Result(StrictRecord):
    """The scored tree of one spec with the suite that it was scored on."""

    format: Literal[1] = 1
    profile: str
    suite: str
    """Name of the suite."""
    sha256: _Hash
    """Hash of the content of the suite."""
    tasks: tuple[Column, ...]
    spec: str = ""
    """File of the spec, relative to the project folder; empty if unknown."""
    settings: tuple[str, ...] = ()
    """Values of `--set`."""
    tree: ResultNode

    @model_validator(mode="after")
    def _columns(self) -> Result:
        bounds = {key: (metric.low, metric.high) for task in self.tasks for key, metric in task.scored().items()}
        bounds[OVERALL] = (-math.inf, 1.0)
        for node in self.tree.nodes():
            honest = {} if node.honest is None else {"honest": node.honest}
            for split, scores in {**node.scores, **honest}.items():
                if split not in ("train", "dev", "test", "honest") or scores.keys() != bounds.keys():
                    raise ValueError(f"the {split} scores of {node.id} are not those of the suite's tasks")
                for key, score in scores.items():
                    low, high = bounds[key]
                    if score is not None and not low <= score <= high:
                        raise ValueError(f"the {split} score {score:g} of {node.id} cannot be one of `{key}`")
        return self

    def to_json(self) -> bytes:
        """Serialize to JSON without default values, except for `format`."""
        values = {"format": self.format, **self.model_dump(mode="json", exclude_defaults=True)}
        return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, shown_as: str) -> Result:
        """Parse the content of a file. Raise RegistryError, with `shown_as` as its place, if it is invalid."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            errors = error.errors(include_url=False, include_context=False, include_input=False)
        notes = tuple(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in errors[:5])
        raise RegistryError(Problem("this is not a result that can be shown", Place(shown_as), notes,
                                    hint="build its spec again, or move the file out of the folder of results"))


class _Cost(BaseModel):
    """The keys of an entry of costs.json that are used; other keys are allowed."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    seconds: float | None = None
    inference: float | None = None
    megabytes: float | None = None
    device: str = ""
    made_of: list[str] = []


def _is_cost(cost: Any) -> bool:
    """Return whether an entry of costs.json is valid."""
    with contextlib.suppress(ValidationError):
        return bool(_Cost.model_validate(cost))
    return False
