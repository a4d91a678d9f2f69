"""HTML report: results, runs and specs of a project as one self-contained page that needs no network.

The page is a Jinja template with autoescape, since names, sentences and logs may contain markup. Equal results give
equal bytes.
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
"""Number of mistakes shown per task."""

LONG = 300
"""Number of characters shown of a sentence."""

WIDE, TALL, MARGIN = 240, 96, 6
"""Width, height and margin of a curve, in SVG user units."""


@dataclass(frozen=True)
class ScoreCell:
    """One score in a table."""

    value: float | None
    interval: tuple[float, float] | None = None
    share: float = 0.0
    """Position between the median (0) and the best (1) of its column."""


@dataclass(frozen=True)
class Curve:
    """A line over epochs in drawing coordinates."""

    label: str
    kind: str
    """`loss` or `score`."""
    points: tuple[tuple[float, float], ...]
    """x to the right and y downwards."""
    low: float
    high: float
    kept: tuple[float, float] | None


@dataclass(frozen=True)
class TaskErrors:
    """Confusion matrix and worst mistakes of one task."""

    title: str
    confusion: Confusion
    worst: tuple[Mistake, ...]


@dataclass(frozen=True)
class Page:
    """Content of the page of one node."""

    anchor: str
    title: str
    aliases: tuple[str, ...]
    """Other names of the node."""
    node: ResultNode
    cells: Mapping[str, Mapping[str, ScoreCell]]
    """Split -> column -> score to show; on dev honest, if available."""
    costs: Mapping[str, float | None]
    """Costs by column title."""
    users: tuple[Page, ...] = ()
    command: str = ""
    stale: tuple[str, ...] = ()
    spec: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    curves: Mapping[str, tuple[Curve, ...]] = field(default_factory=dict)
    errors: tuple[TaskErrors, ...] = ()

    @property
    def is_apparent(self) -> bool:
        """Whether the shown dev scores are apparent."""
        return self.node.is_apparent() and not self.node.honest


@dataclass(frozen=True)
class SplitFacts:
    """Statistics of one split of a task."""

    name: str
    count: int
    words: float
    """Mean number of words per sentence."""
    longest: int
    classes: Mapping[str, float]
    """Share of examples by label; for a regression, by bin."""


@dataclass(frozen=True)
class SuiteTable:
    """All systems scored on one suite, best first."""

    profile: str
    suite: str
    content: str
    columns: tuple[tuple[str, str], ...]
    splits: tuple[str, ...]
    pages: tuple[Page, ...]
    roots: tuple[ResultNode, ...]
    """Ensembles at the root of a result."""
    splits_of: Mapping[str, tuple[SplitFacts, ...]]
    dropped: Mapping[str, int]
    notes: tuple[str, ...]

    @property
    def shown(self) -> list[tuple[str, str, str]]:
        """Split, name and title of each leaderboard column that has a score."""
        return [(split, name, title) for split in self.splits for name, title in self.columns
                if any(split in page.cells and page.cells[split][name].value is not None for page in self.pages)]

    @property
    def by_id(self) -> dict[str, Page]:
        """Pages by node id."""
        return {page.node.id: page for page in self.pages}


def html(profiles: Sequence[ProfileResults], sentences: bool = True) -> bytes:
    """Render the report; without `sentences` it contains no text of the data."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True, finalize=_printable)
    script = (TEMPLATES / "page.js").read_text()
    boards = [board for profile_results in profiles for board in _boards(profile_results, sentences)]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template("page.html").render(
        boards=boards, overall=OVERALL, style=(TEMPLATES / "page.css").read_text(), script=script, digest=digest,
        size=(WIDE, TALL), long=LONG)
    return page.lstrip().encode()


def _printable(value: Any) -> Any:
    """Remove invisible and bidirectional control characters from text; leave markup unchanged."""
    return "\n".join(map(clean, value.split("\n"))) if type(value) is str else value


def _boards(profile_results: ProfileResults, sentences: bool) -> Iterator[SuiteTable]:
    """Yield the table of each suite."""
    for sha256, result in profile_results.by_suite.items():
        nodes = sorted(profile_results.on(result), key=_rank)
        cells = _cells(profile_results, result, nodes)
        pages: dict[str, Page] = {}
        for node in sorted(nodes, key=lambda node: -sum(1 for _ in node.nodes())):
            users = tuple(page for page in pages.values() if any(m.id == node.id for m in page.node.members))
            pages[node.id] = _page(profile_results, node, cells[node.id], users, sentences)
        data = profile_results.data(result.tree.id)
        yield SuiteTable(
            profile_results.profile, result.suite, sha256[:12], _columns(result),
            tuple(split for split in ("dev", "test") if any(split in node.scores for node in nodes)),
            tuple(pages[node.id] for node in nodes),
            tuple(r.tree for r in profile_results.results if r.sha256 == sha256 and r.tree.members),
            {name: tuple(_splits(data, name)) for name in data.tasks} if data else {},
            data.dropped if data else {}, tuple(profile_results.notes))


def _columns(result: Result) -> tuple[tuple[str, str], ...]:
    return ((OVERALL, OVERALL), *(pair for task in result.tasks for pair in task.titles().items()))


def _rank(node: ResultNode) -> tuple[bool, float, str, str]:
    """Return the sort key of a node: best dev overall first, without one last."""
    overall = node.shown().get("dev", {}).get(OVERALL)
    return overall is None, -(overall or 0.0), node.name, node.id


def _cells(profile_results: ProfileResults, result: Result,
           nodes: Sequence[ResultNode]) -> dict[str, dict[str, dict[str, ScoreCell]]]:
    """Return the scores of each node by split and column, with their position between median and best."""
    signs = {key: metric.sign for task in result.tasks for key, metric in task.scored().items()}
    values: dict[tuple[str, str], list[float]] = {}
    for split, column, value in ((s, c, v) for n in nodes for s, by in n.shown().items() for c, v in by.items()):
        if value is not None:
            values.setdefault((split, column), []).append(value)

    def cell(node: ResultNode, split: str, column: str, value: float | None) -> ScoreCell:
        if value is None:
            return ScoreCell(None)
        sign, all_ = signs.get(column, 1), values[split, column]
        gain, most = (sign * (one - median(all_)) for one in (value, max(all_, key=lambda one: sign * one)))
        share = round(max(0.0, gain) / most, 3) if most > 0 else float(gain == most)
        return ScoreCell(value, profile_results.interval(node.id, column, split), share)

    return {node.id: {split: {column: cell(node, split, column, value) for column, value in by.items()}
                      for split, by in node.shown().items()} for node in nodes}


def _page(profile_results: ProfileResults, node: ResultNode, cells: Mapping[str, Mapping[str, ScoreCell]],
          users: tuple[Page, ...], sentences: bool) -> Page:
    """Return the page of a node."""
    run, history = profile_results.runs.get(node.id), profile_results.history(node.id)
    planned = profile_results.plan.nodes.get(node.id)
    spec, command = "", ""
    if planned and isinstance(planned.spec, Leaf | Tree):
        spec = document(planned.spec, planned.title)
        command = f"mtrun build {planned.spec.place.file} --profile {profile_results.profile}"
    elif run:
        spec = json.dumps(run.manifest["spec"], indent=1, sort_keys=True, ensure_ascii=False)
    return Page(
        anchor=f"{profile_results.profile}-{node.id}", title=node.name or node.what,
        aliases=profile_results.aliases(node), node=node, cells=cells, users=users,
        costs=_costs(profile_results, node),
        command=command, stale=planned.stale if planned else (), spec=spec,
        environment=_environment(run.manifest) if run else {}, history=history,
        curves=_curves(history, profile_results.suites[node.id].tasks, run.manifest["epoch"]) if run else {},
        errors=tuple(_task_errors(profile_results, node, sentences)))


def _costs(profile_results: ProfileResults, node: ResultNode) -> dict[str, float | None]:
    """Return the total costs of all leaves of a node."""
    counts = {leaf.id: leaf.parameters for leaf in node.nodes() if leaf.kind == "leaf"}.values()
    return {"parameters": None if None in counts else sum(count or 0 for count in counts),
            "training, s": profile_results.cost(node, "seconds"),
            "1,000 sentences, s": profile_results.cost(node, "inference")}


def _environment(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return machine, software and costs of a run, by label."""
    facts = {**manifest.get("environment", {}), "seconds": f"{manifest['seconds']:,.1f}"}
    optional = {"peak memory, MB": "megabytes", "finished": "finished"}
    facts |= {label: manifest[key] for label, key in optional.items() if key in manifest}
    return {**facts, "epoch kept": manifest["epoch"], "parameters": f"{manifest['parameters']:,}",
            "data": manifest["suite"]["sha256"][:12], "manifest": manifest["sha256"][:12]}


def _curves(history: Sequence[Mapping[str, Any]], tasks: Sequence[Column], kept: int) -> dict[str, tuple[Curve, ...]]:
    """Return the curves of training loss and dev score, by task title."""
    curves_by_task = {}
    for task in tasks:
        lines = (("train loss", "loss", [entry["losses"].get(task.name) for entry in history]),
                 *((f"dev {metric.title}", "score", [entry["dev"].get(key) for entry in history])
                   for key, metric in task.scored().items()))
        curves_by_task[task.title] = tuple(_curve(label, kind, values, kept) for label, kind, values in lines
                                  if len(values) > 1 and None not in values)
    return {title: curves for title, curves in curves_by_task.items() if curves}


def _curve(label: str, kind: str, values: Sequence[float], kept: int) -> Curve:
    """Scale values to drawing coordinates."""
    low, high = min(values), max(values)
    step, scale = (WIDE - 2 * MARGIN) / (len(values) - 1), (TALL - 2 * MARGIN) / ((high - low) or 1.0)
    points = tuple((round(MARGIN + i * step, 1), round(TALL - MARGIN - (value - low) * scale, 1))
                   for i, value in enumerate(values))
    return Curve(label, kind, points, low, high, points[kept - 1] if 0 < kept <= len(points) else None)


def _task_errors(profile_results: ProfileResults, node: ResultNode, sentences: bool) -> Iterator[TaskErrors]:
    """Yield the errors on dev of each task that a node predicts."""
    data, predictions = profile_results.data(node.id), profile_results.predictions(node.id)
    if data is None or predictions is None:
        return
    for name, task in data.tasks.items():
        examples, scores = data.splits[name].get("dev"), predictions.find(data, "dev", name)
        if examples is not None and scores is not None and examples.labels is not None and len(examples):
            mistakes = tuple(worst(task, scores, examples, WORST)) if sentences else ()
            yield TaskErrors(task.title, confusion(task, scores, examples.labels), mistakes)


def _splits(data: Data, name: str) -> Iterator[SplitFacts]:
    """Yield the statistics of each split of a task."""
    for split, examples in data.splits[name].items():
        lengths = [len(sentence.split()) for sentence in (*examples.first, *examples.second)]
        yield SplitFacts(split, len(examples), sum(lengths) / max(1, len(lengths)), max(lengths, default=0),
                         _classes(data, name, examples))


def _classes(data: Data, name: str, examples: Examples) -> dict[str, float]:
    """Return the share of examples by label; empty if there are no labels."""
    if examples.labels is None or not len(examples):
        return {}
    binned = confusion(data.tasks[name], examples.labels[:, None], examples.labels) if (
        data.tasks[name].kind == "regression") else None
    if binned is not None:
        return {label: float(count) / len(examples) for label, count in zip(binned.names, binned.counts.sum(axis=1),
                                                                            strict=True)}
    if data.tasks[name].kind == "multilabel":
        return dict(zip(data.tasks[name].names, examples.labels.mean(axis=0).tolist(), strict=True))
    return {label: float((examples.labels == value).mean()) for value, label in enumerate(data.tasks[name].names)}
