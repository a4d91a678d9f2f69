"""Events of a build."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Event:
    """An event of a node, or of the whole build if `id` is empty.

    `event` is one of planned, reused, damaged, started, progress, trained, elsewhere, retried, detached, scored,
    rescored, failed, blocked, interrupted, done; `values` holds its details as plain JSON.
    """

    event: str
    name: str = ""
    id: str = ""
    values: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the event as one line of JSON."""
        return json.dumps({"v": 1, "event": self.event, "name": self.name, "id": self.id, **self.values})
