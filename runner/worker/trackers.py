"""Tracking: a leaf's history as TensorBoard's files or in a local MLflow store, under `tracking/` of the project.

It is written at the end of every epoch, from the history and outside of training: no result depends on it, and where it
fails, training goes on without. Nothing is sent anywhere.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..files import lock, make_folder, remove
from ..part import plain_dump
from ..specs.diff import flat
from ..specs.job import TrainingJob
from ..specs.spec import Model

FOLDER = "tracking"

STORE = "mlflow.db"

WAIT_SECONDS = 0.1

LONG = 500
"""How many characters of a value MLflow's older stores take."""


class Tracker(Protocol):
    """Somewhere that takes the numbers of a run."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add the numbers of an epoch that ended at a step."""

    def close(self) -> None:
        """Take note that no more will come."""


class TensorBoard:
    """Event files in `tracking/tensorboard/<name>-<id>`: `tensorboard --logdir tracking/tensorboard`."""

    def __init__(self, order: TrainingJob, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        own = folder / "tensorboard" / f"{order.name}-{order.id}"
        remove(own)  # a run that goes on tells its history from the beginning
        make_folder(own)
        self.writer = SummaryWriter(str(own))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add the numbers of an epoch that ended at a step."""
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        """Close the files."""
        self.writer.close()


class MLflow:
    """A run in `tracking/mlflow.db`: `mlflow ui --backend-store-uri sqlite:///tracking/mlflow.db`."""

    def __init__(self, order: TrainingJob, folder: Path) -> None:
        os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_LOGGING_LEVEL": "WARNING"}
        from mlflow import MlflowClient

        make_folder(folder)
        while (descriptor := lock(folder / f".{STORE}.lock")) is None:  # its tables are made by one process
            time.sleep(WAIT_SECONDS)
        try:
            self.client = MlflowClient(f"sqlite:///{folder / STORE}")
            found = self.client.get_experiment_by_name("mtrun")
            experiment = found.experiment_id if found else self.client.create_experiment(
                "mtrun", (folder / "mlflow").as_uri())
        finally:
            os.close(descriptor)
        for old in self.client.search_runs([experiment], f"tags.`mtrun.id` = '{order.id}'"):
            self.client.delete_run(old.info.run_id)
        self.run = self.client.create_run(experiment, run_name=order.name, tags={"mtrun.id": order.id}).info.run_id
        for key, value in flat(plain_dump(order.model)):
            self.client.log_param(self.run, ".".join(key), json.dumps(value, default=str)[:LONG])

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add the numbers of an epoch that ended at a step."""
        for name, value in numbers.items():
            self.client.log_metric(self.run, name, value, step=step)

    def close(self) -> None:
        """Mark the run as finished."""
        self.client.set_terminated(self.run)


TRACKERS: dict[str, Callable[[TrainingJob, Path], Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow}
"""By the key of `[track]` that asks for it."""


@dataclass
class Tracking:
    """Tells a leaf's history to what its spec asks for."""

    order: TrainingJob
    say: Callable[[str], None]
    """Takes a line for the log."""
    _told: int = 0
    _trackers: dict[str, Tracker] = field(default_factory=dict)
    _given_up: set[str] = field(default_factory=set)

    def tell(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Add the epochs that were not told yet."""
        new, self._told = history[self._told:], len(history)

        def log(tracker: Tracker) -> None:
            for entry in new:
                tracker.log(entry["step"], dict(numbers(entry)))

        for name in wanted(self.order.model) if new else ():
            self._try(name, log)

    def close(self) -> None:
        """Take note that the run is finished."""
        for name in list(self._trackers):
            self._try(name, lambda tracker: tracker.close())

    def _try(self, name: str, act: Callable[[Tracker], None]) -> None:
        """Do something with a tracker, which is given up with a word where it fails in whatever way."""
        if name in self._given_up:
            return
        try:
            if name not in self._trackers:
                self._trackers[name] = TRACKERS[name](self.order, self.order.project / FOLDER)
            act(self._trackers[name])
        except Exception as error:
            self._given_up.add(name)
            self.say(f"no more is tracked by {name}: {type(error).__name__}: {error}")


def wanted(model: Model) -> list[str]:
    """Return the names of the trackers that a model asks for."""
    return [name for name in TRACKERS if getattr(model.track, name)]


def numbers(entry: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the name and value of every number in an epoch's entry of a history."""
    yield from ((f"loss/{task}", value) for task, value in entry["losses"].items())
    yield from ((f"dev/{task}", value) for task, value in entry["dev"].items() if value is not None)
    if conflict := entry.get("conflict"):
        yield from ((f"conflict/{pair}", value) for pair, value in conflict["pairs"].items() if value is not None)
        yield "conflict/share", conflict["share"]
