"""What tests of results share."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

from runner.results.result import Column, Result, ResultNode

TASKS = (Column(name="sentiment", title="SST", kind="classification"),
         Column(name="paraphrase", title="Quora", kind="binary"),
         Column(name="similarity", title="STS", kind="regression"))


COLUMNS = ("sentiment", "paraphrase", "similarity", "overall")


Four = tuple[float | None, float | None, float | None, float | None]


def scores(dev: Four, test: Four | None = None) -> dict[str, dict[str, float | None]]:
    made = {"dev": dict(zip(COLUMNS, dev, strict=True))}
    return made | ({"test": dict(zip(COLUMNS, test, strict=True))} if test else {})


def leaf(name: str, digit: str, dev: Four, test: Four | None = None, **more: Any) -> ResultNode:
    what = "sum, linear+pair+pair"
    return ResultNode(name=name, id=digit * 12, kind="leaf", what=what, scores=scores(dev, test), **more)


def ensemble(name: str, digit: str, what: str, dev: Four, *members: ResultNode, **more: Any) -> ResultNode:
    return ResultNode(name=name, id=digit * 12, kind="ensemble", what=what, scores=scores(dev), members=members, **more)


def result(tree: ResultNode, **more: Any) -> Result:
    return Result(**{"profile": "demo", "suite": "demo", "sha256": "01" * 32, "tasks": TASKS, "tree": tree, **more})


SUM = leaf("sum", "a", (0.5, 0.75, 0.5, 0.666667), (0.4, 0.7, 0.45, 0.608333), parameters=1234)


COSINE = leaf("cosine_mse", "b", (0.49, 0.751, 0.557, 0.673167), (0.41, 0.69, 0.5, 0.616667))


SST = leaf("sst|only", "c", (0.513, None, None, None), apparent=True)


CHOSEN = ensemble("", "d", "best of 2 by similarity", (0.49, 0.751, 0.557, 0.673167), SUM, COSINE, chosen=(1,))


ROUTE = ensemble("ensemble2", "e", "route of 2", (0.513, None, 0.557, None), CHOSEN, SST,
                 roles=("similarity", "sentiment"))


AVERAGE = ensemble("ensemble3", "f", "average of 2", (0.4996, 0.76, 0.53, 0.675), SUM, COSINE)


def publish(folder: Path, *results: Result, profile: str = "demo") -> Path:
    (folder / profile).mkdir(parents=True, exist_ok=True)
    for one in results:
        name = one.tree.name.translate({ord(c): "-" for c in string.punctuation})
        (folder / profile / f"{name}.json").write_bytes(one.to_json())
    return folder
