"""One leaf in one process: `python -m runner.worker ATTEMPT [PARENT]`.

Build and worker talk through the files of `runner/attempts.py` only; a leaf that succeeds appears in the registry.
Exit codes are mtrun's. Where PARENT, the build's process id, is given, the worker stops once that process is gone.
Of a leaf that is trained on several GPUs, this is the first process; it starts the others (`runner/crews.py`).
"""

from __future__ import annotations

import json
import platform
import signal
import threading
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from .. import machine
from ..errors import DataError, MtrunError, Problem, RankLost, RegistryError, Stopped, TrainingError
from ..files import append, as_storage_error, remove
from ..part import Known, plain_dump
from ..parts.discovery import error_in_own_part
from ..project import Project
from ..registry.attempt import TASK, Attempt
from ..registry.registry import EPOCHS, HISTORY, LOG, PREDICTIONS, WEIGHTS, Registry
from ..specs.identity import changed_sources, fingerprints, leaf_id
from ..specs.job import TrainingJob
from ..specs.spec import Model, SoupModel
from ..tasks.data import Data
from ..tasks.predictions import join_epochs
from ..training import distillation, memory, stored_model
from ..training.batches import seeded
from ..training.distillation import distilled
from ..training.network import Network
from ..training.soup import SoupTrainer
from ..training.tokens import Tokens
from ..training.trainer import Trainer
from ..version import __version__
from .supervisor import PATIENCE_SECONDS, OtherRank, Rank, Supervisor


def device_of(model: Model) -> torch.device:
    """Return the device that a leaf's resources name."""
    name = model.resources.device
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise TrainingError(Problem(f"the leaf is to be trained on `{name}`, and its worker sees no GPU",
                                    hint="resources.device = \"auto\" takes a GPU where there is one"))
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def processes(model: Model) -> int:
    """Return how many processes train a leaf, one a GPU. Raise TrainingError where there are too few GPUs."""
    wanted, there = model.resources.processes, torch.cuda.device_count()
    if wanted > max(1, there):
        raise TrainingError(f"the leaf wants {wanted} GPUs (resources.gpus), and its worker sees {there or 'none'}")
    return 1 if isinstance(model, SoupModel) else wanted


def train(order: TrainingJob, watch: Rank, may_start_ranks: bool = False) -> None:
    """Train one leaf and commit it. Raise Stopped where `watch` does; the attempt can then be resumed."""
    model, registry = order.model, Registry(Project(order.project).registry)
    order.check_code()
    torch.set_num_threads(model.resources.threads)
    count = processes(model) if may_start_ranks else 1
    before = _inputs(order)
    data = model.suite.load(order.project)
    if leaf_id(model, data.sha256(), order.project) != order.id:
        raise DataError(f"the data or weights of `{order.name}` changed since the build was planned; build again")
    watch.tick()
    started = time.monotonic()
    lesson = distillation.targets(order, data, registry, device_of(model), watch.tick) if model.teacher else data
    trainer = _restored(order, data, lesson, registry.cache, watch)
    ranks = trainer.network.ranks = watch.gather(count)
    watch.follow(order, trainer)
    device = device_name(trainer.device, ranks.count)
    watch.say(f"{trainer.verb} {order.name} on {device}, {trainer.steps} steps")
    predictions = trainer.run(watch, watch.attempt.checkpoint)
    if ranks.number:
        return
    if _inputs(order) != before:
        raise DataError(f"the data or weights of `{order.name}` changed while it was trained; build again, or put the "
                        "files back as they were and build again to go on from the checkpoint")
    watch.say(f"finished; epoch {trainer.kept_epoch + 1} is kept")
    files = {PREDICTIONS: predictions.to_bytes(), **_files(trainer, watch.attempt)}
    made_of = {id: run.weights for id in order.made_of() if (run := registry.find(id))}
    spent = {"seconds": round(time.monotonic() - started, 3)}
    manifest = describe(order, data, device) | _outcome(trainer) | spent | ({"made_of": made_of} if made_of else {})
    registry.commit(order.id, files, manifest, order.replaces)


def _inputs(order: TrainingJob) -> tuple[object, object]:
    """Return what tells a change of the files that a run is made of."""
    suite = order.model.suite
    files = suite.inputs(order.project)
    return suite.load(order.project).sha256() if files is None else files, order.model.inputs(order.project)


def _restored(order: TrainingJob, data: Data, lesson: Data, cache: Path, watch: Rank) -> Trainer:
    """Return the trainer of a leaf, at its checkpoint where there is a sound one."""
    checkpoint = watch.attempt.checkpoint
    trainer = trainer_of(order.model, data, order.project, cache, lesson)
    if checkpoint.exists():
        try:
            trainer.restore(checkpoint)
        except RegistryError as error:
            watch.say(f"{error}; starting from the beginning")
            remove(checkpoint)
            return _restored(order, data, lesson, cache, watch)
        old = changed_sources(trainer.state.source, order.model)
        watch.say(f"resumed at step {trainer.state.step}{', begun with older code of ' * bool(old)}{', '.join(old)}")
    else:
        trainer.state.source = fingerprints(order.model)
    return trainer


def trainer_of(model: Model, data: Data, project: Path, cache: Path, lesson: Data | None = None) -> Trainer:
    """Return a leaf's trainer at its first step; a student has a `lesson` in place of the suite's own examples."""
    torch.manual_seed(seeded(model.train.seed, "weights"))
    tokenizer = model.encoder.tokenizer(data, project)
    examples = lesson or data
    tokens = Tokens.of(examples.splits, tokenizer, cache, model.joint)
    network = Network(distilled(model), data.tasks, model.encoder.build(tokenizer, project))
    if isinstance(model.start, Known):
        stored_model.begin(network, model.start.id, project)
    network = network.to(device_of(model))
    if isinstance(model, SoupModel):
        return SoupTrainer(model, network, data, tokens, Registry(Project(project).registry))
    return Trainer(model, network, examples, tokens)


def _files(trainer: Trainer, attempt: Attempt) -> dict[str, bytes]:
    """Return what a run keeps besides its Predictions."""
    files = {HISTORY: "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in trainer.state.history).encode(),
             LOG: attempt.log.read_bytes() if attempt.log.exists() else b""}
    if trainer.epochs:
        files[EPOCHS] = join_epochs(trainer.epochs).to_bytes()
    if trainer.model.resources.keep_weights:
        weights = trainer.network.weights().items()
        files[WEIGHTS] = save({name: tensor.detach().cpu().contiguous() for name, tensor in weights})
    return files


def _outcome(trainer: Trainer) -> dict[str, Any]:
    """Return what a manifest says of how a run went."""
    state = trainer.state
    return {
        "source": state.source,
        "epoch": trainer.kept_epoch + 1,
        "dev": state.history[trainer.kept_epoch]["dev"],
        "parameters": sum(tensor.numel() for tensor in trainer.network.weights().values()),
        "megabytes": round(memory.peak(trainer.device)),
        "inference": round(1000 * trainer.all.seconds / max(1, len(trainer.all.rows)), 4),
        "splits": state.splits,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        **trainer.outcome(),
    }


def describe(order: TrainingJob, data: Data, device: str) -> dict[str, Any]:
    """Return what a manifest says of a run before it is trained, on a device of such a name."""
    model = order.model
    return {
        "name": order.name,
        "what": model.summary(),
        "spec": plain_dump(model),
        "suite": {"sha256": data.sha256(), "dropped": dict(data.dropped)},
        "inputs": model.inputs(order.project),
        **({"trees": order.plain_trees()} if order.trees else {}),
        "environment": {
            "mtrun": __version__, "python": platform.python_version(), "torch": torch.__version__,
            "device": device, "processor": machine.processor(), "instructions": machine.instruction_set(),
            "threads": model.resources.threads,
        },
    }


def device_name(device: torch.device, count: int) -> str:
    """Return what kind of device this is, and how many there are where it is not one, for comparing costs."""
    processor = f"cpu ({machine.processor()}, {machine.instruction_set()})"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor
    return f"{count} x {name}" if count > 1 else name


def run(watch: Rank, may_start_ranks: bool = False) -> int:
    """Train what an attempt orders; return the exit code, with error.json in the attempt where it failed."""
    watch.begin()
    try:
        train(TrainingJob.read(watch.attempt.folder / TASK), watch, may_start_ranks)
    except Stopped as error:
        return watch.stopped(error)
    except MtrunError as error:
        if isinstance(error, RankLost):
            time.sleep(PATIENCE_SECONDS)  # the guard finds out which process is gone, and ends this one
        code, problems = error.exit_code, [problem.render() for problem in error.problems]
    except Exception as error:
        code, problems = _unexpected(error, watch.attempt)
    else:
        watch.finished()
        return 0
    finally:
        watch.close()
    watch.failed(code, problems)
    return code


def _unexpected(error: Exception, attempt: Attempt) -> tuple[int, list[str]]:
    """Return exit code and message of an error that is not ours, with its traceback in the log.

    It is a refused file, too little memory, or a bug.
    """
    append(attempt.log, "".join(traceback.format_exception(error)))
    if own := error_in_own_part(error):
        return own.exit_code, [own.render()]
    if storage_error := as_storage_error(error):
        return storage_error.exit_code, [storage_error.render()]
    if memory.is_exhausted(error):
        return 1, [f"error: memory ran out outside of any batch: {str(error).splitlines()[0]}"]
    return 4, [f"error: {type(error).__name__}: {error} (a bug; {attempt.log} has the traceback)"]


def main(attempt: Path, parent: int = 0, *rank: int) -> int:
    """Train one leaf as a process of its own, which stops where it is told to or where its parent is gone.

    `rank` is given for another rank than the first: its number, how many there are, and the port where they meet.
    """
    memory.keep_freed()
    watch: OtherRank | Supervisor = Supervisor(Attempt(attempt))
    if rank:
        watch = OtherRank(Attempt(attempt), number=rank[0], count=rank[1], port=rank[2])
    if rank and torch.cuda.is_available():
        torch.cuda.set_device(rank[0])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, watch.stop)
    threading.Thread(target=watch.guard, args=(parent,), daemon=True).start()
    return run(watch, may_start_ranks=True)
