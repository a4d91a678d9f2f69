"""A run that is stopped and goes on equals the one that was not; memory that runs out; what is not finite."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from projects import project
from train_runs import Stop, digest, resumed, trainer, whole

from runner.errors import Diverged, RegistryError, Stopped, TrainingError
from runner.parts.encoders import Packed
from runner.tasks.metrics import overall, score_split
from runner.tasks.predictions import Output, Predictions, join_epochs, split_epochs
from runner.training import checkpoint as snapshots
from runner.training import memory
from runner.training.trainer import State, Trainer, TrainerCallback

DRY = ["encoder.dropout=0.0", "encoder.hidden_dropout=0.0"]


@pytest.mark.parametrize("settings", [
    [], ["combiner=mean", "train.epoch=longest"], ["combiner=pcgrad", "train.steps=5"],
    ["schedule={type='linear'}", "train.select=last"], ["train.precision=bf16"],
    ["schedule={type='cosine'}", "optimizer.layer_decay=0.7", "encoder.layers=2"],
], ids=["sum", "mean-longest", "pcgrad-steps", "linear-last", "bf16", "cosine-layers"])
def test_stopped_anywhere_and_resumed_is_the_same_to_the_bit(tmp_path: Path, settings: list[str]) -> None:
    """Ticks are counted in evaluation too, so that it is stopped there as well."""
    root = project(tmp_path)
    wanted, predictions, ticks = whole(root, *settings)
    stops = sorted(int(s) for s in np.random.default_rng(0).choice(range(1, ticks), 3, replace=False))
    pieces = [stops[0], *(b - a for a, b in pairwise(stops))]
    run, bytes_ = resumed(root, pieces, *settings)
    assert digest(run) == digest(wanted)
    assert bytes_ == predictions


@pytest.mark.long
@pytest.mark.parametrize("combiner", ["sum", "mean", "pcgrad"])
@pytest.mark.parametrize("epoch", ["shortest", "longest"])
def test_stopped_at_every_single_tick(tmp_path: Path, combiner: str, epoch: str) -> None:
    root, settings = project(tmp_path), [f"combiner={combiner}", f"train.epoch={epoch}", "train.batch_size=20"]
    wanted, predictions, ticks = whole(root, *settings)
    run, bytes_ = resumed(root, [2] * (2 * ticks), *settings)  # a stopped evaluation begins again: one tick is lost
    assert digest(run) == digest(wanted) and bytes_ == predictions
    for stop in range(1, ticks + 1):
        (root / "checkpoint.safetensors").unlink(missing_ok=True)
        run, bytes_ = resumed(root, [stop], *settings)
        assert digest(run) == digest(wanted) and bytes_ == predictions, stop
    print(f"{combiner}, {epoch}: stopped at each of {ticks} places, the same bytes")


def test_the_best_epoch_is_kept(tmp_path: Path) -> None:
    run = trainer(project(tmp_path), "train.epochs=6", "optimizer.lr=0.02", 'train.tasks=["sentiment", "similarity"]')
    predictions = run.run(TrainerCallback(), tmp_path / "none")
    trained = {task: run.data.tasks[task] for task in ("sentiment", "similarity")}
    reached = [overall(entry["dev"], trained) for entry in run.state.history]
    assert run.kept_epoch == int(np.argmax(reached))  # argmax takes the first of equals
    assert score_split(predictions, run.data, "dev") == run.state.history[run.kept_epoch]["dev"]


def test_what_was_said_of_dev_is_kept_for_every_epoch(tmp_path: Path) -> None:
    run = trainer(project(tmp_path), "train.epochs=3", "optimizer.lr=0.02")
    run.run(TrainerCallback(), tmp_path / "none")
    assert [score_split(said, run.data, "dev") for said in run.epochs] == [e["dev"] for e in run.state.history]
    joined = Predictions.from_bytes(join_epochs(run.epochs).to_bytes(), "epochs")
    assert joined.outputs["dev"]["sentiment"].scores.shape == (30, 3 * 5)
    again = split_epochs(joined, run.data)
    assert [said.to_bytes() for said in again] == [said.to_bytes() for said in run.epochs]
    last = trainer(project(tmp_path), "train.epochs=2", "train.select=last")
    last.run(TrainerCallback(), tmp_path / "none")
    assert last.epochs == []  # nothing was chosen


def test_epochs_of_another_suite_are_refused(tmp_path: Path) -> None:
    data = trainer(project(tmp_path)).data
    for task, width in (("sentiment", 9), ("toxicity", 5)):
        joined = Predictions({"dev": {task: Output(("a",), np.zeros((1, width), np.float32))}})
        with pytest.raises(RegistryError, match=f"the scores of `{task}` on dev"):
            split_epochs(joined, data)


def test_training_learns(tmp_path: Path) -> None:
    run = trainer(project(tmp_path), "train.epochs=8", "optimizer.lr=0.005", *DRY)
    run.run(TrainerCallback(), tmp_path / "none")
    first, last = (sum(run.state.history[i]["losses"].values()) for i in (0, -1))
    assert last < first


# Memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [2, 3, 8])
@pytest.mark.parametrize("combiner", ["sum", "mean", "pcgrad"])
def test_a_step_in_parts_has_the_same_losses_and_gradients(tmp_path: Path, combiner: str, parts: int) -> None:
    run = trainer(project(tmp_path), f"combiner={combiner}", *DRY)
    for step in (0, 7):  # the last batch of an epoch is a shorter one
        batch, found = run.batches.batch(step), []
        for count in (1, parts):
            run.network.clear()
            losses = run.network.backward(batch, run.model.combiner, np.random.default_rng(3), count)
            found.append([losses, *(p.grad.clone() for p in run.parameters.values())])
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6)


def short_of_memory(monkeypatch: pytest.MonkeyPatch, run: Trainer, limit: int, 
                    error: Callable[[], Exception]) -> None:
    """Let the encoder take no more than `limit` sentences at a time."""
    forward = type(run.network.encoder).forward

    def limited(self: torch.nn.Module, packed: Packed) -> torch.Tensor:
        if len(packed.lengths) > limit:
            raise error()
        return forward(self, packed)

    monkeypatch.setattr(type(run.network.encoder), "forward", limited)


@pytest.mark.parametrize("error", [
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), MemoryError,
    lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
], ids=["cuda", "python", "cpu"])
def test_memory_that_runs_out_splits_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                               error: Callable[[], Exception]) -> None:
    root = project(tmp_path)
    wanted, _, _ = whole(root, "train.epochs=1", *DRY)
    run, watch = trainer(root, "train.epochs=1", *DRY), Stop()
    short_of_memory(monkeypatch, run, 12, error)  # a batch has 8 + 16 + 16 sentences
    run.run(watch, root / "none")
    assert run.state.splits == [{"step": 1, "parts": 2}, {"step": 1, "parts": 4}]
    assert "memory ran out at step 1 (batch of 8 examples a task, in 1 parts" in watch.said[0] and "MB" in watch.said[0]
    for task, loss in run.state.history[0]["losses"].items():
        assert loss == pytest.approx(wanted.state.history[0]["losses"][task], rel=1e-3)
    for name, weight in run.network.state_dict().items():
        if not name.endswith("key.bias"):  # it shifts all of a softmax: its gradient is noise, which Adam makes large
            torch.testing.assert_close(weight, wanted.network.state_dict()[name], rtol=0, atol=2e-3)


def test_an_example_that_does_not_fit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trainer(project(tmp_path))
    short_of_memory(monkeypatch, run, 3, MemoryError)
    with pytest.raises(TrainingError) as caught:
        run.run(TrainerCallback(), tmp_path / "none")
    text = caught.value.render()
    assert "one example of each task does not fit into memory at step 1" in text
    assert "batch of 8 examples a task, in 8 parts" in text and "longest sentence: " in text and " MB on cpu" in text


def test_what_was_split_stays_so_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project(tmp_path)
    short_of_memory(monkeypatch, trainer(root), 30, MemoryError)
    wanted, predictions, ticks = whole(root)
    run, bytes_ = resumed(root, [ticks // 3, ticks // 3])
    assert run.state.splits == wanted.state.splits == [{"step": 1, "parts": 2}]
    assert digest(run) == digest(wanted) and bytes_ == predictions


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    assert not memory.is_exhausted(RuntimeError("shapes cannot be multiplied"))
    assert not memory.is_exhausted(ValueError("out of memory"))


# What is not finite -----------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_with_task_and_step(tmp_path: Path) -> None:
    run = trainer(project(tmp_path), "optimizer.lr=1e30")
    with pytest.raises(Diverged, match=r"the loss of \w+ is (nan|inf) at step \d+, rate 1e\+30"):
        run.run(TrainerCallback(), tmp_path / "none")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize(("where", "whose"), [("heads.sentiment.weight", "sentiment"),
                                              ("encoder.blocks.0.query.weight", "all")])
def test_a_gradient_that_is_not_finite_stops_within_the_step(tmp_path: Path, bad: float, where: str,
                                                              whose: str) -> None:
    run, checkpoint = trainer(project(tmp_path)), tmp_path / "checkpoint"
    with pytest.raises(Stopped):
        run.run(Stop(4), checkpoint)
    whose = whose.replace("all", "paraphrase and sentiment and similarity")
    good = checkpoint.read_bytes()
    run.network.train()
    before = {name: p.detach().clone() for name, p in run.parameters.items()}
    run.parameters[where].register_hook(lambda grad: torch.full_like(grad, bad))
    with pytest.raises(Diverged) as caught:
        run.run(TrainerCallback(), checkpoint)
    text = caught.value.render()
    assert f"the gradient of `{where}` is not finite, due to {whose}, at step 4, rate 0.001" in text
    assert text.count("losses of step") == 4 and "losses of step 4: paraphrase 0." in text
    assert all(torch.equal(p, before[name]) for name, p in run.parameters.items())
    assert checkpoint.read_bytes() == good


def test_a_weight_that_is_not_finite_stops_within_the_step(tmp_path: Path) -> None:
    """A row of the word table that no sentence of the step uses shows in no loss."""
    run = trainer(project(tmp_path))
    words = run.network.words
    assert words is not None
    unused = np.setdiff1d(words.used.numpy(), run.batches.batch(0).packed.tokens.numpy())[0]
    with torch.no_grad():
        words.rows[np.searchsorted(words.used.numpy(), unused)] = float("nan")
    with pytest.raises(Diverged, match=r"the weight `encoder.word.weight` is not finite at step 1"):
        run.run(TrainerCallback(), tmp_path / "none")


# The checkpoint ---------------------------------------------------------------------------------------------------


def test_a_damaged_checkpoint_is_noticed(tmp_path: Path) -> None:
    """Every flip, cut or deletion anywhere is found, or leaves the content as it was."""
    root = project(tmp_path)
    run, path, random = trainer(root), tmp_path / "checkpoint", np.random.default_rng(0)
    with pytest.raises(Stopped):
        run.run(Stop(5), path)
    good, (tensors, state) = path.read_bytes(), snapshots.read(path)
    found = 0
    for _ in range(150):
        bad, at = bytearray(good), int(random.integers(len(good)))
        if random.random() < 0.8:
            at = at if random.random() < 0.5 else at % 3000  # the header is small, and the most delicate
            bad[at] ^= 1 << int(random.integers(8))
        else:
            del bad[at:]
        path.write_bytes(bad)
        try:
            again, same = snapshots.read(path)
        except RegistryError:
            found += 1
        else:
            assert same == state and again.keys() == tensors.keys()
            assert all(torch.equal(again[name], tensors[name]) for name in tensors)
    assert found > 140


def test_a_checkpoint_of_another_version_is_not_used(tmp_path: Path) -> None:
    run, path = trainer(project(tmp_path)), tmp_path / "checkpoint"
    snapshots.write(path, {}, {"step": 3, "moods": 1})
    with pytest.raises(RegistryError, match="another run or version"):
        run.restore(path)
    snapshots.write(path, {}, State(step=3).__dict__)
    with pytest.raises(RegistryError, match="another run or version"):
        run.restore(path)
