"""Results: the scored tree of one spec, as it is published.

`results/<profile>/<name>.json` is one `Result`; it has no times in it, so that the same build gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import Place, Problem, RegistryError
from .scores import OVERALL

_Score = Annotated[float, Field(ge=-1, le=1)]
_Hash = Annotated[str, Field(pattern="^[0-9a-f]{12,64}$")]


class _Record(BaseModel):
    """A strict piece of a results file."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Column(_Record):
    """A task as the tables know it."""

    name: str
    title: str
    kind: Literal["classification", "binary", "regression"]


class ResultNode(_Record):
    """One node of a scored tree."""

    name: str = ""
    """The spec's name; empty for an inline table."""
    id: _Hash
    kind: Literal["leaf", "ensemble"]
    what: str
    """What it is, in a few words."""
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
        return self

    def nodes(self) -> Iterator[ResultNode]:
        """Yield the node and all below it."""
        yield self
        for member in self.members:
            yield from member.nodes()

    def is_apparent(self) -> bool:
        """Return whether dev labels were used to choose something in the node or below it."""
        return any(node.apparent or node.chosen is not None for node in self.nodes())


class Result(_Record):
    """The scored tree of one spec, and the suite that it was scored on."""

    format: Literal[1] = 1
    profile: str
    suite: str
    """The suite's name."""
    sha256: _Hash
    """Hash of the suite's content."""
    tasks: tuple[Column, ...]
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
