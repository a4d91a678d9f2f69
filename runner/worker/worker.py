"""Train one leaf in one process: `python -m runner.worker ATTEMPT [PARENT]`.

Build and worker communicate only through the files of the attempt (`registry/attempt.py`); a finished leaf is committed
to the registry. Exit codes are those of mtrun. If PARENT, the process id of the build, is given, the worker stops when
that process has ended. For a leaf trained on several GPUs this is the first rank, which starts the others
(`worker/rank_processes.py`).
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
    """Return the device in the resources of a leaf; `auto` is a GPU if there is one."""
    name = model.resources.device
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise TrainingError(Problem(f"the leaf is to be trained on `{name}`, and its worker sees no GPU",
                                    hint="resources.device = \"auto\" takes a GPU where there is one"))
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def processes(model: Model) -> int:
    """Return the number of processes that train a leaf, one per GPU. Raise TrainingError if there are too few GPUs."""
    wanted, gpus = model.resources.processes, torch.cuda.device_count()
    if wanted > max(1, gpus):
        raise TrainingError(f"the leaf wants {wanted} GPUs (resources.gpus), and its worker sees {gpus or 'none'}")
    return 1 if isinstance(model, SoupModel) else wanted


def train(job: TrainingJob, watch: Rank, may_start_ranks: bool = False) -> None:
    """Train one leaf and commit its run. Raise Stopped if `watch` does; the attempt can then be resumed."""
    model, registry = job.model, Registry(Project(job.project).registry)
    job.check_code()
    torch.set_num_threads(model.resources.threads)
    count = processes(model) if may_start_ranks else 1
    inputs = _inputs(job)
    data = model.suite.load(job.project)
    if leaf_id(model, data.sha256(), job.project) != job.id:
        raise DataError(f"the data or weights of `{job.name}` changed since the build was planned; build again")
    watch.tick()
    started = time.monotonic()
    examples = distillation.targets(job, data, registry, device_of(model), watch.tick) if model.teacher else data
    trainer = _restored(job, data, examples, registry.cache, watch)
    ranks = trainer.network.ranks = watch.gather(count)
    watch.follow(job, trainer)
    device = device_name(trainer.device, ranks.count)
    watch.say(f"{trainer.verb} {job.name} on {device}, {trainer.steps} steps")
    predictions = trainer.run(watch, watch.attempt.checkpoint)
    if ranks.number:
        return
    if _inputs(job) != inputs:
        raise DataError(f"the data or weights of `{job.name}` changed while it was trained; build again, or put the "
                        "files back as they were and build again to go on from the checkpoint")
    watch.say(f"finished; epoch {trainer.kept_epoch + 1} is kept")
    files = {PREDICTIONS: predictions.to_bytes(), **_files(trainer, watch.attempt)}
    made_of = {id: run.weights for id in job.made_of() if (run := registry.find(id))}
    spent = {"seconds": round(time.monotonic() - started, 3)}
    manifest = describe(job, data, device) | _outcome(trainer) | spent | ({"made_of": made_of} if made_of else {})
    registry.commit(job.id, files, manifest, job.replaces)


def _inputs(job: TrainingJob) -> tuple[object, object]:
    """Return fingerprints of the files of suite and model, to detect changes during training."""
    suite = job.model.suite
    files = suite.inputs(job.project)
    return suite.load(job.project).sha256() if files is None else files, job.model.inputs(job.project)


def _restored(job: TrainingJob, data: Data, examples: Data, cache: Path, watch: Rank) -> Trainer:
    """Return the trainer of a leaf, restored from its checkpoint if there is a valid one."""
    checkpoint = watch.attempt.checkpoint
    trainer = trainer_of(job.model, data, job.project, cache, examples)
    if checkpoint.exists():
        try:
            trainer.restore(checkpoint)
        except RegistryError as error:
            watch.say(f"{error}; starting from the beginning")
            remove(checkpoint)
            return _restored(job, data, examples, cache, watch)
        old = changed_sources(trainer.state.source, job.model)
        watch.say(f"resumed at step {trainer.state.step}{', begun with older code of ' * bool(old)}{', '.join(old)}")
    else:
        trainer.state.source = fingerprints(job.model)
    return trainer


def trainer_of(model: Model, data: Data, project: Path, cache: Path, examples: Data | None = None) -> Trainer:
    """Return the trainer of a leaf at its first step; `examples` replace those of the suite for a student."""
    torch.manual_seed(seeded(model.train.seed, "weights"))
    tokenizer = model.encoder.tokenizer(data, project)
    examples = examples or data
    tokens = Tokens.of(examples.splits, tokenizer, cache, model.joint)
    network = Network(distilled(model), data.tasks, model.build_encoder(tokenizer, project))
    if isinstance(model.start, Known):
        stored_model.initialize(network, model.start.id, project)
    else:
        network.attach_adapter()
    network = network.to(device_of(model))
    if isinstance(model, SoupModel):
        return SoupTrainer(model, network, data, tokens, project)
    return Trainer(model, network, examples, tokens)


def _files(trainer: Trainer, attempt: Attempt) -> dict[str, bytes]:
    """Return the files of a run besides its Predictions."""
    files = {HISTORY: "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in trainer.state.history).encode(),
             LOG: attempt.log.read_bytes() if attempt.log.exists() else b""}
    if trainer.epochs:
        files[EPOCHS] = join_epochs(trainer.epochs).to_bytes()
    if trainer.model.resources.keep_weights:
        weights = trainer.network.weights().items()
        files[WEIGHTS] = save({name: tensor.detach().cpu().contiguous() for name, tensor in weights})
    return files


def _outcome(trainer: Trainer) -> dict[str, Any]:
    """Return the entries of a manifest about the training."""
    state = trainer.state
    return {
        "source": state.source,
        "epoch": trainer.kept_epoch + 1,
        "dev": state.history[trainer.kept_epoch]["dev"],
        "parameters": trainer.network.size,
        "megabytes": round(memory.peak(trainer.device)),
        "inference": round(1000 * trainer.all.seconds / max(1, len(trainer.all.rows)), 4),
        "splits": state.splits,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        **trainer.outcome(),
    }


def describe(job: TrainingJob, data: Data, device: str) -> dict[str, Any]:
    """Return the entries of a manifest that are known before the training."""
    model = job.model
    return {
        "name": job.name,
        "what": model.summary(),
        "spec": plain_dump(model),
        "suite": {"sha256": data.sha256(), "dropped": dict(data.dropped)},
        "inputs": model.inputs(job.project),
        **({"trees": job.plain_trees()} if job.trees else {}),
        "environment": {
            "mtrun": __version__, "python": platform.python_version(), "torch": torch.__version__,
            "device": device, "processor": machine.processor(), "instructions": machine.instruction_set(),
            "threads": model.resources.threads,
        },
    }


def device_name(device: torch.device, count: int) -> str:
    """Return the model of a device, with the number of devices if it is not one, for comparing costs."""
    processor = f"cpu ({machine.processor()}, {machine.instruction_set()})"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor
    return f"{count} x {name}" if count > 1 else name


def run(watch: Rank, may_start_ranks: bool = False) -> int:
    """Train the leaf of an attempt and return the exit code; after a failure, the attempt contains error.json."""
    watch.begin()
    try:
        train(TrainingJob.read(watch.attempt.folder / TASK), watch, may_start_ranks)
    except Stopped as error:
        return watch.stopped(error)
    except MtrunError as error:
        if isinstance(error, RankLost):
            time.sleep(PATIENCE_SECONDS)  # the guard thread finds the process that ended, and ends this one
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
    """Return exit code and messages of an exception that is not a MtrunError, and log its traceback.

    It is a storage error, exhausted memory, or a bug.
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
    """Entry point of a worker process, which stops on a signal or when its parent has ended.

    `rank` is empty for the first rank, else the number of the rank, the number of ranks and the port of the rendezvous.
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
