"""For notebooks and programs: specs that are built, looked at and asked, and tables as pandas' DataFrames."""

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
from .tasks.metrics import decided

if TYPE_CHECKING:
    import pandas as pd

    from .inference.system import System


def load(spec: str | Path, profile: str = "demo", settings: Mapping[str, Any] | None = None) -> Loaded:
    """Return a spec of one system; `settings`, such as `{"train.epochs": 3}`, override keys in every model.

    Raise SpecError or DataError with every problem; nothing is started.
    """
    loaded = Loaded(Path(spec), profile, settings or {})
    if len(roots := loaded.plan().roots) > 1:
        raise UsageError(f"{spec} has {len(roots)} systems: {', '.join(roots)}; load an ensemble of them, or one model")
    return loaded


def table(results: str | Path = "results", split: str = "dev", group: str = "*") -> pd.DataFrame:
    """Return the leaderboards of a folder of results: a row for each system that is like a pattern of `group`.

    The columns are those of `mtrun table --format json`, in full numbers.
    """
    import pandas as pd

    from .results.leaderboard import tables
    from .results.result_folder import read

    made = tables(read(Path(results)), "json", split, group)
    for said in (*made.notes, *(problem.render() for problem in made.problems)):
        warnings.warn(said, stacklevel=2)
    found = json.loads(made.text)
    return pd.DataFrame([{"profile": one["profile"], "suite": one["suite"], **row} for one in found
                         for row in one["rows"]])


@dataclass
class Loaded:
    """One system: `build` trains what is missing, `predictions` and `predict` say what it says."""

    spec: Path
    profile: str = "demo"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def plan(self) -> Plan:
        """Return what a build would do now."""
        settings = [f"{key}={written(value)}" for key, value in self.settings.items()]
        return make_plan(Project.of(self.spec).folder, [self.spec], self.profile, settings)

    def build(self, jobs: int = 1) -> Loaded:
        """Train what is missing, `jobs` leaves at a time, and write the results. Raise MtrunError where that fails."""
        from .worker.executors.local import Local

        with self._reserved() as plan:
            check_names(plan, Project(plan.project).results / plan.profile)
            pool = Scheduler(plan.registry, plan.project, Local(), jobs)
            work = Build(plan, pool, Project(plan.project).results)
            with _stopping(pool):
                failed = [event for event in work.events() if event.event == "failed"]
        if failed:
            raise MtrunError(*_problems(failed))
        self.__dict__.pop("_system", None)  # its weights may be those of other runs now
        return self

    def predictions(self, split: str = "dev") -> pd.DataFrame:
        """Return what the system said of a split: a row for each task and id, with scores, decision and label."""
        import pandas as pd

        with self._reserved() as plan:
            (root,) = plan.roots.values()
            data, said = plan.data[plan.nodes[root].suite], tree_predictions(plan, root).of(root)
        frames = []
        for task, output in said.outputs.get(split, {}).items():
            labels = data.splits[task][split].labels
            frames.append(pd.DataFrame({
                "task": task, "id": output.ids, "said": decided(data.tasks[task], output.scores).astype(float),
                "label": labels, **{f"score_{k}": column for k, column in enumerate(output.scores.T)}}))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def predict(self, sentences: Iterable[str] = (), pairs: Sequence[tuple[str, str]] = (), members: bool = False
                ) -> pd.DataFrame:
        """Return what the system says of sentences and pairs: a row for each and each task, and for each member."""
        import pandas as pd

        asked = [Input(str(number), one) for number, one in enumerate([*((text,) for text in sentences), *pairs], 1)]
        return pd.DataFrame([row for said in self._system.answers(asked, members=members)
                             for answer in said.answers for row in _rows(answer, said.question.sentences)])

    @cached_property
    def _system(self) -> System:
        """The system with its weights; read once."""
        from .inference.system import System

        with self._reserved() as plan:
            (root,) = plan.roots.values()
            return System(plan, root)

    @contextmanager
    def _reserved(self) -> Iterator[Plan]:
        """Give the plan, whose runs nobody removes meanwhile."""
        with reserved(Registry(Project.of(self.spec).registry)) as mine:
            plan = self.plan()
            mine.hold(plan.nodes)
            yield plan


@contextmanager
def _stopping(pool: Scheduler) -> Iterator[None]:
    """Let the signal of a notebook's stop button stop the workers, each with a checkpoint."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, pool.interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _rows(answer: Answer, sentences: tuple[str, ...], path: str = "") -> Iterator[dict[str, Any]]:
    """Yield the row of an answer and those of the members' answers below it."""
    yield {"sentence": sentences[0], **({"second": sentences[1]} if len(sentences) > 1 else {}), "task": answer.task,
           "node": path, "said": answer.label, "probability": max(answer.probabilities, default=None),
           "scores": answer.scores}
    for member in answer.members:
        yield from _rows(member, sentences, f"{path}/{member.name}".removeprefix("/"))


def _problems(failed: Iterable[Event]) -> list[Problem]:
    """Return the problems that events tell of."""
    return [Problem(text.removeprefix("error: ")) for event in failed for text in event.values["problems"]]
