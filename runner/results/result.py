"""Results: the scored tree of one spec, as it is published.

`results/<profile>/<name>.json` is one `Result`; it has no times in it, so that the same build gives the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import Place, Problem, RegistryError
from ..part import StrictRecord
from ..tasks.metrics import OVERALL, Scores

_Score = Annotated[float, Field(ge=-1, le=1)]

COSTS = "costs.json"
"""What the models cost: the only published file that differs from run to run."""

SIGNIFICANCE = "significance.json"
"""Intervals and tests of the published scores."""

_Hash = Annotated[str, Field(pattern="^[0-9a-f]{12,64}$")]


class Column(StrictRecord):
    """A task as the tables know it."""

    name: str
    title: str
    kind: Literal["classification", "binary", "regression"]


class ResultNode(StrictRecord):
    """One node of a scored tree."""

    name: str = ""
    """The spec's name; empty for an inline table."""
    id: _Hash
    kind: Literal["leaf", "ensemble"]
    what: str
    """What it is, in a few words."""
    digest: str = Field(default="", pattern="^([0-9a-f]{12})?$")
    """Of a leaf: which predictions the scores are of, as `Run.digest` says; empty in results of older versions."""
    parameters: int | None = Field(default=None, ge=0)
    """Numbers in a model."""
    apparent: bool = False
    """Whether dev labels were used to choose something in this very node: an epoch, members, weights."""
    scores: dict[str, dict[str, _Score | None]]
    """As `runner.scores.score` returns them."""
    honest: dict[str, _Score | None] | None = None
    """Cross-fitted dev scores, as `runner.crossfit` makes them, where something was chosen in the node or below it."""
    chosen: tuple[int, ...] | None = None
    """Positions of the members that a rule chose, best first."""
    roles: tuple[str, ...] = ()
    """What each member is for, such as a route's task."""
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
        yield self
        for member in self.members:
            yield from member.nodes()

    def leaves(self) -> Iterator[ResultNode]:
        """Yield the leaves at and below the node."""
        return (node for node in self.nodes() if node.kind == "leaf")

    @cached_property
    def answer(self) -> str:
        """Which of several replicas this is: a digest of its leaves' digests.

        Two nodes of one id with the same answer must have the same scores. Where a leaf has no digest the scores
        themselves stand for it, so that results of older versions are replicas and never damage.
        """
        digests = [leaf.digest for leaf in self.leaves()]
        known: Any = digests if all(digests) else [self.scores, self.honest]
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]

    def shown(self) -> Scores:
        """Return the scores to show and to rank by: those of dev are honest where something was chosen."""
        return self.scores | ({"dev": dict(self.honest)} if self.honest else {})

    def used(self) -> list[tuple[str, ResultNode]]:
        """Return the members that the node makes use of with their roles, the best of those that a rule chose first."""
        roles = self.roles or ("",) * len(self.members)
        places = range(len(self.members)) if self.chosen is None else self.chosen
        return [(roles[place], self.members[place]) for place in places]

    def unused(self) -> list[ResultNode]:
        """Return the members that a rule did not choose."""
        return [] if self.chosen is None else [m for i, m in enumerate(self.members) if i not in self.chosen]

    def is_apparent(self) -> bool:
        """Return whether dev labels were used to choose something in the node or below it."""
        return any(node.apparent or node.chosen is not None for node in self.nodes())


class Result(StrictRecord):
    """The scored tree of one spec, and the suite that it was scored on."""

    format: Literal[1] = 1
    profile: str
    suite: str
    """The suite's name."""
    sha256: _Hash
    """Hash of the suite's content."""
    tasks: tuple[Column, ...]
    spec: str = ""
    """The spec's file, from the project's folder; empty where that is not known."""
    settings: tuple[str, ...] = ()
    """What `--set` said."""
    tree: ResultNode

    @model_validator(mode="after")
    def _columns(self) -> Result:
        columns = {task.name for task in self.tasks} | {OVERALL}
        for node in self.tree.nodes():
            for split, scores in node.scores.items():
                if split not in ("train", "dev", "test") or scores.keys() != columns:
                    raise ValueError(f"the {split} scores of {node.id} are not those of the suite's tasks")
            if node.honest is not None and node.honest.keys() != columns:
                raise ValueError(f"the honest scores of {node.id} are not those of the suite's tasks")
        return self

    def to_json(self) -> bytes:
        """Return the bytes of the file: what is at its default is left out, except `format`."""
        values = {"format": self.format, **self.model_dump(mode="json", exclude_defaults=True)}
        return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, shown_as: str) -> Result:
        """Return what a file holds; raise RegistryError, which names the file, where it is damaged or foreign."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
        notes = tuple(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in found[:5])
        raise RegistryError(Problem("this is not a result that can be shown", Place(shown_as), notes,
                                    hint="build its spec again, or move the file out of the folder of results"))


class _Cost(BaseModel):
    """What is made use of in an entry of costs.json; other keys may be there."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    seconds: float | None = None
    inference: float | None = None
    megabytes: float | None = None
    device: str = ""
    made_of: list[str] = []


def _is_cost(cost: Any) -> bool:
    with contextlib.suppress(ValidationError):
        return bool(_Cost.model_validate(cost))
    return False
