"""One leaf in one process: `python -m runner.worker ATTEMPT`.

Parent and worker talk through files only. The attempt's folder holds task.json (what to train) and gets progress.json,
log.txt and, where the leaf fails, error.json; a leaf that succeeds appears in the registry. Exit codes are mtrun's.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from . import __version__
from .assembly import Assembly, tabled
from .batches import seeded
from .errors import DataError, MtrunError, Place, SpecError, Stopped
from .files import json_bytes, remove, write_bytes
from .network import Network
from .parts import fingerprints, plain_dump
from .plan import leaf_id
from .registry import PREDICTIONS, WEIGHTS, Registry
from .spec import Model
from .suites import Data
from .tokens import Tokens
from .train import State, Trainer

PROGRESS_SECONDS = 0.5


@dataclass(frozen=True)
class Order:
    """What a worker is to train: the content of task.json."""

    id: str
    name: str
    project: Path
    model: Model

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        return json_bytes({"id": self.id, "name": self.name, "project": str(self.project),
                           "model": plain_dump(self.model)})

    @classmethod
    def read(cls, path: Path) -> Order:
        """Return the order in a file."""
        values = json.loads(path.read_bytes())
        project, at = Path(values["project"]), Place(str(path))
        assembly = Assembly(project)
        model = assembly.part(Model, tabled(values["model"], at), at)
        if model is None:
            raise SpecError(*assembly.problems)
        return cls(values["id"], values["name"], project, model)


def device_of(model: Model) -> torch.device:
    """Return the device that a leaf's resources name."""
    name = model.resources.device
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def train(order: Order, attempt: Path, stop: Callable[[], bool]) -> None:
    """Train one leaf and commit it. Raise Stopped where `stop` asked for it; the attempt can then be resumed."""
    model, registry = order.model, Registry(order.project / "registry")
    torch.set_num_threads(model.resources.threads)
    data = model.suite.load(order.project)
    suite = data.sha256()
    if leaf_id(model, suite, order.project) != order.id:
        raise DataError(f"the data or weights of `{order.name}` changed since the build was planned; build again")
    trainer = trainer_of(model, data, order.project, registry.cache)
    checkpoint = attempt / "checkpoint.safetensors"
    if checkpoint.exists():
        trainer.restore(checkpoint)
        print(f"resumed at step {trainer.state.step}", flush=True)
    started = time.monotonic()
    progress = Progress(attempt / "progress.json", len(trainer.batches))
    predictions = trainer.run(progress.report, stop, checkpoint)
    if predictions is None:
        raise Stopped()
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in trainer.network.state_dict().items()}
    history = "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in trainer.state.history)
    files = {WEIGHTS: save(weights), PREDICTIONS: predictions.to_bytes(), "history.jsonl": history.encode()}
    manifest = describe(order, data, suite) | {
        "epoch": trainer.kept_epoch + 1,
        "dev": trainer.state.history[trainer.kept_epoch]["dev"],
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "seconds": round(time.monotonic() - started, 3),
    }
    registry.commit(order.id, files, manifest)


def trainer_of(model: Model, data: Data, project: Path, cache: Path) -> Trainer:
    """Return a leaf's trainer at its first step."""
    torch.manual_seed(seeded(model.train.seed, "weights"))
    tokenizer = model.encoder.tokenizer(data, project)
    tokens = Tokens.of(data.splits, tokenizer, cache)
    network = Network(model, data.tasks, model.encoder.build(tokenizer, project))
    return Trainer(model, network.to(device_of(model)), data, tokens)


def describe(order: Order, data: Data, suite: str) -> dict[str, Any]:
    """Return what a manifest says of a run besides its files."""
    model = order.model
    return {
        "name": order.name,
        "spec": plain_dump(model),
        "suite": {"sha256": suite, "dropped": dict(data.dropped)},
        "inputs": model.encoder.inputs(order.project),
        "source": fingerprints(model),
        "environment": {
            "mtrun": __version__, "python": platform.python_version(), "torch": torch.__version__,
            "device": device_name(device_of(model)), "threads": model.resources.threads,
        },
    }


def device_name(device: torch.device) -> str:
    """Return what kind of device this is, for comparing costs."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})"


class Progress:
    """Tells the parent how far the run is, by a small file that is rewritten now and then."""

    def __init__(self, path: Path, steps: int) -> None:
        self.path, self.steps, self.last = path, steps, 0.0

    def report(self, state: State) -> None:
        """Write the file where the last writing is long enough ago."""
        now = time.monotonic()
        if now - self.last < PROGRESS_SECONDS:
            return
        self.last = now
        dev = state.history[-1]["dev"]["overall"] if state.history else None
        text = json.dumps({"step": state.step, "steps": self.steps, "epoch": len(state.history), "overall": dev})
        beside = self.path.with_suffix(".new")
        beside.write_text(text)
        os.replace(beside, self.path)


def run(attempt: Path, stop: Callable[[], bool] = lambda: False) -> int:
    """Train what an attempt's task.json orders; return the exit code, with error.json beside it where it is not 0."""
    (attempt / "error.json").unlink(missing_ok=True)
    try:
        train(Order.read(attempt / "task.json"), attempt, stop)
    except MtrunError as error:
        code, problems = error.exit_code, [problem.render() for problem in error.problems]
    except Exception as error:  # a bug: the parent shows one line, the log has the traceback
        traceback.print_exc()
        code, problems = 4, [f"error: {type(error).__name__}: {error} (a bug; the log has the traceback)"]
    else:
        remove(attempt)
        return 0
    print("\n\n".join(problems), file=sys.stderr, flush=True)
    write_bytes(attempt / "error.json", json_bytes({"exit_code": code, "problems": problems}))
    return code


def main(attempt: Path) -> int:
    """Train one leaf as a process of its own, which stops where it is told to or where its parent is gone."""
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, frame: signals.append(received))
    parent = os.getppid()
    return run(attempt, lambda: bool(signals) or os.getppid() != parent)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
