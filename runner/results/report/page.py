"""The report: results, runs and specs of a project as one HTML page that needs no network.

The page is a Jinja template which escapes every value: names, sentences and logs may hold anything. The same dossiers
give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from ...errors import clean
from ...specs.render import document
from ...specs.spec import Leaf, Tree
from ...tasks.data import Data, Examples
from ...tasks.metrics import OVERALL
from ..confusion import Confusion, Mistake, confusion, worst
from ..profile_results import ProfileResults
from ..result import Column, Result, ResultNode

TEMPLATES = Path(__file__).parent / "templates"

WORST = 5
"""How many mistakes of a task are shown."""

LONG = 300
"""How many characters of a sentence are shown."""

WIDE, TALL, MARGIN = 240, 96, 6
"""Size of a curve and the room around it, in the units of its drawing."""


@dataclass(frozen=True)
class ScoreCell:
    """One score of a table."""

    value: float | None
    interval: tuple[float, float] | None = None
    share: float = 0.0
    """Where it lies between the middle (0) and the best (1) of its column."""


@dataclass(frozen=True)
class Curve:
    """A line over epochs, as it is drawn."""

    label: str
    kind: str
    """`loss` or `score`."""
    points: tuple[tuple[float, float], ...]
    """Across and down."""
    low: float
    high: float
    kept: tuple[float, float] | None


@dataclass(frozen=True)
class TaskErrors:
    """What went wrong in one task."""

    title: str
    confusion: Confusion
    worst: tuple[Mistake, ...]


@dataclass(frozen=True)
class Page:
    """All that is known of one node."""

    anchor: str
    title: str
    aliases: tuple[str, ...]
    """Its other names."""
    node: ResultNode
    cells: Mapping[str, Mapping[str, ScoreCell]]
    """Split -> column -> score, as it is shown: on dev honest, where something was chosen and that could be had."""
    costs: Mapping[str, float | None]
    """What it costs by the title of a column."""
    users: tuple[Page, ...] = ()
    command: str = ""
    stale: tuple[str, ...] = ()
    spec: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    curves: Mapping[str, tuple[Curve, ...]] = field(default_factory=dict)
    judged: tuple[TaskErrors, ...] = ()

    @property
    def is_apparent(self) -> bool:
        """Whether the dev scores that are shown are on data that was used to choose something."""
        return self.node.is_apparent() and not self.node.honest


@dataclass(frozen=True)
class Split:
    """What a split of a task holds."""

    name: str
    count: int
    words: float
    """Mean number of words of a sentence."""
    longest: int
    classes: Mapping[str, float]
    """Share of the examples that have each label; of a regression, of each part of the range."""


@dataclass(frozen=True)
class SuiteTable:
    """All systems scored on one suite, the best first."""

    profile: str
    suite: str
    content: str
    columns: tuple[tuple[str, str], ...]
    splits: tuple[str, ...]
    pages: tuple[Page, ...]
    roots: tuple[ResultNode, ...]
    """The ensembles that results are of."""
    splits_of: Mapping[str, tuple[Split, ...]]
    dropped: Mapping[str, int]
    notes: tuple[str, ...]

    @property
    def shown(self) -> list[tuple[str, str, str]]:
        """Split, name and title of each column of the leaderboard: those in which a score is."""
        return [(split, name, title) for split in self.splits for name, title in self.columns
                if any(split in page.cells and page.cells[split][name].value is not None for page in self.pages)]

    @property
    def by_id(self) -> dict[str, Page]:
        """The pages by the ids of their nodes."""
        return {page.node.id: page for page in self.pages}


def html(dossiers: Sequence[ProfileResults], sentences: bool = True) -> bytes:
    """Return the page; without `sentences` it holds nothing of the data but numbers."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True, finalize=_printable)
    script = (TEMPLATES / "page.js").read_text()
    boards = [board for dossier in dossiers for board in _boards(dossier, sentences)]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template("page.html").render(
        boards=boards, overall=OVERALL, style=(TEMPLATES / "page.css").read_text(), script=script, digest=digest,
        size=(WIDE, TALL), long=LONG)
    return page.lstrip().encode()


def _printable(value: Any) -> Any:
    """Return text without characters that are not seen or turn the order of others around; markup as it is."""
    return "\n".join(map(clean, value.split("\n"))) if type(value) is str else value


def _boards(dossier: ProfileResults, sentences: bool) -> Iterator[SuiteTable]:
    """Yield the board of each suite."""
    for sha256, result in dossier.by_suite.items():
        nodes = sorted(dossier.on(result), key=_rank)
        cells = _cells(dossier, nodes)
        pages: dict[str, Page] = {}
        for node in sorted(nodes, key=lambda node: -sum(1 for _ in node.nodes())):
            users = tuple(page for page in pages.values() if any(m.id == node.id for m in page.node.members))
            pages[node.id] = _page(dossier, node, cells[node.id], users, sentences)
        data = dossier.data(result.tree.id)
        yield SuiteTable(
            dossier.profile, result.suite, sha256[:12], _columns(result),
            tuple(split for split in ("dev", "test") if any(split in node.scores for node in nodes)),
            tuple(pages[node.id] for node in nodes),
            tuple(r.tree for r in dossier.results if r.sha256 == sha256 and r.tree.members),
            {name: tuple(_splits(data, name)) for name in data.tasks} if data else {},
            data.dropped if data else {}, tuple(dossier.notes))


def _columns(result: Result) -> tuple[tuple[str, str], ...]:
    return ((OVERALL, OVERALL), *((task.name, task.title) for task in result.tasks))


def _rank(node: ResultNode) -> tuple[bool, float, str, str]:
    """Return what nodes are sorted by: the best dev overall first, those without one last."""
    overall = node.shown().get("dev", {}).get(OVERALL)
    return overall is None, -(overall or 0.0), node.name, node.id


def _cells(dossier: ProfileResults, nodes: Sequence[ResultNode]) -> dict[str, dict[str, dict[str, ScoreCell]]]:
    """Return the scores of each node by split and column, with their places between the middle and the best."""
    ends: dict[tuple[str, str], list[float]] = {}
    for split, column, value in ((s, c, v) for n in nodes for s, by in n.shown().items() for c, v in by.items()):
        if value is not None:
            ends.setdefault((split, column), []).append(value)

    def cell(node: ResultNode, split: str, column: str, value: float | None) -> ScoreCell:
        if value is None:
            return ScoreCell(None)
        middle, best = median(ends[split, column]), max(ends[split, column])
        share = round(max(0.0, value - middle) / (best - middle), 3) if best > middle else float(value == best)
        return ScoreCell(value, dossier.interval(node.id, column, split), share)

    return {node.id: {split: {column: cell(node, split, column, value) for column, value in by.items()}
                      for split, by in node.shown().items()} for node in nodes}


def _page(dossier: ProfileResults, node: ResultNode, cells: Mapping[str, Mapping[str, ScoreCell]],
          users: tuple[Page, ...], sentences: bool) -> Page:
    """Return all that is known of a node."""
    run, history = dossier.runs.get(node.id), dossier.history(node.id)
    planned = dossier.plan.nodes.get(node.id)
    spec, command = "", ""
    if planned and isinstance(planned.spec, Leaf | Tree):
        spec = document(planned.spec, planned.title)
        command = f"mtrun build {planned.spec.place.file} --profile {dossier.profile}"
    elif run:
        spec = json.dumps(run.manifest["spec"], indent=1, sort_keys=True, ensure_ascii=False)
    return Page(
        anchor=f"{dossier.profile}-{node.id}", title=node.name or node.what, aliases=dossier.aliases(node),
        node=node, cells=cells, users=users,
        costs=_costs(dossier, node),
        command=command, stale=planned.stale if planned else (), spec=spec,
        environment=_environment(run.manifest) if run else {}, history=history,
        curves=_curves(history, dossier.suites[node.id].tasks, run.manifest["epoch"]) if run else {},
        judged=tuple(_judged(dossier, node, sentences)))


def _costs(dossier: ProfileResults, node: ResultNode) -> dict[str, float | None]:
    """Return what all models of a node cost together."""
    counts = {leaf.id: leaf.parameters for leaf in node.nodes() if leaf.kind == "leaf"}.values()
    return {"parameters": None if None in counts else sum(count or 0 for count in counts),
            "training, s": dossier.cost(node, "seconds"), "1,000 sentences, s": dossier.cost(node, "inference")}


def _environment(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return where and how a run was made, for a list of words and values."""
    made = {**manifest.get("environment", {}), "seconds": f"{manifest['seconds']:,.1f}"}
    optional = {"peak memory, MB": "megabytes", "finished": "finished"}
    made |= {shown: manifest[key] for shown, key in optional.items() if key in manifest}
    return {**made, "epoch kept": manifest["epoch"], "parameters": f"{manifest['parameters']:,}",
            "data": manifest["suite"]["sha256"][:12], "manifest": manifest["sha256"][:12]}


def _curves(history: Sequence[Mapping[str, Any]], tasks: Sequence[Column], kept: int) -> dict[str, tuple[Curve, ...]]:
    """Return the curves of each task by its title: training loss and dev score."""
    found = {}
    for task in tasks:
        lines = (("train loss", "loss", [entry["losses"].get(task.name) for entry in history]),
                 ("dev Pearson r" if task.kind == "regression" else "dev accuracy", "score",
                  [entry["dev"].get(task.name) for entry in history]))
        found[task.title] = tuple(_curve(label, kind, values, kept) for label, kind, values in lines
                                  if len(values) > 1 and None not in values)
    return {title: curves for title, curves in found.items() if curves}


def _curve(label: str, kind: str, values: Sequence[float], kept: int) -> Curve:
    """Return a line scaled to the size of its drawing."""
    low, high = min(values), max(values)
    step, scale = (WIDE - 2 * MARGIN) / (len(values) - 1), (TALL - 2 * MARGIN) / ((high - low) or 1.0)
    points = tuple((round(MARGIN + i * step, 1), round(TALL - MARGIN - (value - low) * scale, 1))
                   for i, value in enumerate(values))
    return Curve(label, kind, points, low, high, points[kept - 1] if 0 < kept <= len(points) else None)


def _judged(dossier: ProfileResults, node: ResultNode, sentences: bool) -> Iterator[TaskErrors]:
    """Yield what went wrong on dev in each task that a node predicts."""
    data, predictions = dossier.data(node.id), dossier.predictions(node.id)
    if data is None or predictions is None:
        return
    for name, task in data.tasks.items():
        examples, scores = data.splits[name].get("dev"), predictions.find(data, "dev", name)
        if examples is not None and scores is not None and examples.labels is not None and len(examples):
            mistakes = tuple(worst(task, scores, examples, WORST)) if sentences else ()
            yield TaskErrors(task.title, confusion(task, scores, examples.labels), mistakes)


def _splits(data: Data, name: str) -> Iterator[Split]:
    """Yield what each split of a task holds."""
    for split, examples in data.splits[name].items():
        lengths = [len(sentence.split()) for sentence in (*examples.first, *examples.second)]
        yield Split(split, len(examples), sum(lengths) / max(1, len(lengths)), max(lengths, default=0),
                    _classes(data, name, examples))


def _classes(data: Data, name: str, examples: Examples) -> dict[str, float]:
    """Return the share of each label; nothing where there are none."""
    if examples.labels is None or not len(examples):
        return {}
    found = confusion(data.tasks[name], examples.labels[:, None], examples.labels) if (
        data.tasks[name].kind == "regression") else None
    if found is not None:
        return {label: float(count) / len(examples) for label, count in zip(found.names, found.counts.sum(axis=1),
                                                                            strict=True)}
    names = ("no", "yes") if data.tasks[name].kind == "binary" else range(data.tasks[name].classes)
    return {str(label): float((examples.labels == value).mean()) for value, label in enumerate(names)}
