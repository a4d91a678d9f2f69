"""Python API for notebooks and programs: build a spec, predict with it, and read tables as pandas DataFrames."""

from __future__ import annotations

import json
import signal
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .build.build import Build
from .build.events import Event
from .build.publish import check_names
from .build.scheduler import Scheduler
from .errors import MtrunError, Problem, UsageError
from .inference.inputs import Input
from .inference.outputs import Answer
from .plan.plan import Plan
from .plan.planner import make_plan
from .plan.predict import tree_predictions
from .project import Project
from .registry.registry import Registry
from .registry.reservations import reserved
from .specs.toml_errors import written
from .tasks.data import Task
from .tasks.metrics import predict_labels

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from .inference.system import System


def load(spec: str | Path, profile: str | None = None, settings: Mapping[str, Any] | None = None) -> Loaded:
    """Load a spec of one system; `settings`, such as `{"train.epochs": 3}`, override keys in every model.

    Without `profile` it is that of the environment variable MTRUN_PROFILE, else of the project's mtrun.toml, else demo.

    Raise SpecError or DataError with every problem, UsageError where the spec has several systems.
    """
    loaded = Loaded(Path(spec), profile, settings or {})
    if len(roots := loaded.plan().roots) > 1:
        raise UsageError(f"{spec} has {len(roots)} systems: {', '.join(roots)}; load an ensemble of them, or one model")
    return loaded


def table(results: str | Path = "results", split: str = "dev", group: str = "*") -> pd.DataFrame:
    """Return the leaderboards of a folder of results, one row per system whose name matches the pattern `group`.

    The columns are those of `mtrun table --format json`, with unrounded numbers.
    """
    import pandas as pd

    from .results.leaderboard import tables
    from .results.result_folder import read

    leaderboards = tables(read(Path(results)), "json", split, group)
    for message in (*leaderboards.notes, *(problem.render() for problem in leaderboards.problems)):
        warnings.warn(message, stacklevel=2)
    suites = json.loads(leaderboards.text)
    return pd.DataFrame([{"profile": suite["profile"], "suite": suite["suite"], **row} for suite in suites
                         for row in suite["rows"]])


@dataclass
class Loaded:
    """One system of a spec: build it, read its predictions, predict new sentences."""

    spec: Path
    profile: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def plan(self) -> Plan:
        """Return the plan of a build."""
        settings = [f"{key}={written(value)}" for key, value in self.settings.items()]
        return make_plan(Project.of(self.spec).folder, [self.spec], self.profile or "", settings)

    def build(self, jobs: int = 1) -> Loaded:
        """Train missing leaves, `jobs` at a time, and write the results. Raise MtrunError where a node fails."""
        from .worker.executors.local import Local

        with self._reserved() as plan:
            check_names(plan, Project(plan.project).results / plan.profile)
            scheduler = Scheduler(plan.registry, plan.project, Local(), jobs)
            work = Build(plan, scheduler, Project(plan.project).results)
            with _stopping(scheduler):
                failed = [event for event in work.events() if event.event == "failed"]
        if failed:
            raise MtrunError(*_problems(failed))
        self.__dict__.pop("_system", None)  # its runs may have been replaced
        return self

    def predictions(self, split: str = "dev") -> pd.DataFrame:
        """Return the system's predictions on a split: a row per task and example, with scores, decision and label."""
        import pandas as pd

        with self._reserved() as plan:
            (root,) = plan.roots.values()
            data, predictions = plan.data[plan.nodes[root].suite], tree_predictions(plan, root).of(root)
        frames = []
        for task, output in predictions.outputs.get(split, {}).items():
            meaning, labels = data.tasks[task], data.splits[task][split].labels
            frames.append(pd.DataFrame({
                "task": task, "id": output.ids, "said": _shown(meaning, predict_labels(meaning, output.scores)),
                "label": None if labels is None else _shown(meaning, labels),
                **{f"score_{k}": column for k, column in enumerate(output.scores.T)}}))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def predict(self, sentences: Iterable[str] = (), pairs: Sequence[tuple[str, str]] = (), members: bool = False
                ) -> pd.DataFrame:
        """Predict sentences and pairs: a row per input and task, with `members` also per member."""
        import pandas as pd

        texts = [*((text,) for text in sentences), *pairs]
        inputs = [Input(str(number), text) for number, text in enumerate(texts, 1)]
        return pd.DataFrame([row for output in self._system.answers(inputs, members=members)
                             for answer in output.answers for row in _rows(answer, output.input.sentences)])

    @cached_property
    def _system(self) -> System:
        """The system with its weights, loaded once."""
        from .inference.system import System

        with self._reserved() as plan:
            (root,) = plan.roots.values()
            return System(plan, root)

    @contextmanager
    def _reserved(self) -> Iterator[Plan]:
        """Yield the plan while its runs are reserved, so that no other process removes them."""
        with reserved(Registry(Project.of(self.spec).registry)) as reservation:
            plan = self.plan()
            reservation.hold(plan.nodes)
            yield plan


@contextmanager
def _stopping(scheduler: Scheduler) -> Iterator[None]:
    """Stop the workers with a checkpoint on SIGINT, which a notebook's stop button sends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, scheduler.interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _shown(task: Task, values: np.ndarray) -> list[Any]:
    """Return labels as numbers, or as their names where the suite names them; lists of names of a multi-label task."""
    return list(map(task.shown, values)) if task.labels or values.ndim > 1 else values.astype(float).tolist()


def _rows(answer: Answer, sentences: tuple[str, ...], path: str = "") -> Iterator[dict[str, Any]]:
    """Yield the row of an answer and those of its members' answers."""
    yield {"sentence": sentences[0], **({"second": sentences[1]} if len(sentences) > 1 else {}), "task": answer.task,
           "node": path, "said": answer.label, "probability": max(answer.probabilities, default=None),
           "scores": answer.scores}
    for member in answer.members:
        yield from _rows(member, sentences, f"{path}/{member.name}".removeprefix("/"))


def _problems(failed: Iterable[Event]) -> list[Problem]:
    """Return the problems in `failed` events."""
    return [Problem(text.removeprefix("error: ")) for event in failed for text in event.values["problems"]]
