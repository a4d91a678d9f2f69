"""Trackers: log a leaf's history to TensorBoard files or a local MLflow store, in `tracking/` of the project.

The numbers are logged from the history at the end of every epoch, outside of training: no result depends on them, and
training continues where logging fails. Nothing is sent over the network.
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
"""Maximum characters of a parameter in older MLflow stores."""


class Tracker(Protocol):
    """Destination of a run's metrics."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the metrics of an epoch that ended at a step."""

    def close(self) -> None:
        """End the run; nothing more is logged."""


class TensorBoard:
    """Event files in `tracking/tensorboard/<name>-<id>`: `tensorboard --logdir tracking/tensorboard`."""

    def __init__(self, order: TrainingJob, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        run_folder = folder / "tensorboard" / f"{order.name}-{order.id}"
        remove(run_folder)  # a resumed run logs its history from the beginning
        make_folder(run_folder)
        self.writer = SummaryWriter(str(run_folder))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the metrics of an epoch that ended at a step."""
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
        while (descriptor := lock(folder / f".{STORE}.lock")) is None:  # only one process may create its tables
            time.sleep(WAIT_SECONDS)
        try:
            self.client = MlflowClient(f"sqlite:///{folder / STORE}")
            existing = self.client.get_experiment_by_name("mtrun")
            experiment = existing.experiment_id if existing else self.client.create_experiment(
                "mtrun", (folder / "mlflow").as_uri())
        finally:
            os.close(descriptor)
        for old in self.client.search_runs([experiment], f"tags.`mtrun.id` = '{order.id}'"):
            self.client.delete_run(old.info.run_id)
        self.run = self.client.create_run(experiment, run_name=order.name, tags={"mtrun.id": order.id}).info.run_id
        for key, value in flat(plain_dump(order.model)):
            self.client.log_param(self.run, ".".join(key), json.dumps(value, default=str)[:LONG])

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the metrics of an epoch that ended at a step."""
        for name, value in numbers.items():
            self.client.log_metric(self.run, name, value, step=step)

    def close(self) -> None:
        """Mark the run as finished."""
        self.client.set_terminated(self.run)


TRACKERS: dict[str, Callable[[TrainingJob, Path], Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow}
"""Tracker by its key in `[track]`."""


@dataclass
class Tracking:
    """Logs a leaf's history to the trackers in its spec."""

    order: TrainingJob
    log_line: Callable[[str], None]
    """Appends a line to the worker's log."""
    _logged: int = 0
    _trackers: dict[str, Tracker] = field(default_factory=dict)
    _failed: set[str] = field(default_factory=set)

    def log_new_epochs(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Log the epochs that were not logged yet."""
        new, self._logged = history[self._logged:], len(history)

        def log(tracker: Tracker) -> None:
            for entry in new:
                tracker.log(entry["step"], dict(numbers(entry)))

        for name in wanted(self.order.model) if new else ():
            self._try(name, log)

    def close(self) -> None:
        """Close all trackers."""
        for name in list(self._trackers):
            self._try(name, lambda tracker: tracker.close())

    def _try(self, name: str, act: Callable[[Tracker], None]) -> None:
        """Call `act` with a tracker; after any error, write a line to the log and stop using this tracker."""
        if name in self._failed:
            return
        try:
            if name not in self._trackers:
                self._trackers[name] = TRACKERS[name](self.order, self.order.project / FOLDER)
            act(self._trackers[name])
        except Exception as error:
            self._failed.add(name)
            self.log_line(f"no more is tracked by {name}: {type(error).__name__}: {error}")


def wanted(model: Model) -> list[str]:
    """Return the names of the trackers that are enabled in a model."""
    return [name for name in TRACKERS if getattr(model.track, name)]


def numbers(entry: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield name and value of every metric in an epoch's entry of the history."""
    yield from ((f"loss/{task}", value) for task, value in entry["losses"].items())
    yield from ((f"dev/{task}", value) for task, value in entry["dev"].items() if value is not None)
    if conflict := entry.get("conflict"):
        yield from ((f"conflict/{pair}", value) for pair, value in conflict["pairs"].items() if value is not None)
        yield "conflict/share", conflict["share"]
