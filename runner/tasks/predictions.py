"""Predictions of a node, and their file format.

The file is a safetensors file with the same bytes for the same content: `dev/sentiment/scores` is float32 [n, k],
`dev/sentiment/ids` is uint8, the n ids as UTF-8 joined by newlines. The predictions of all epochs of a leaf are stored
in one such file, with scores [n, epochs * k].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from ..errors import Place, Problem, RegistryError, TrainingError
from ..files import reported
from ..lazy import deferred
from .data import SPLITS, Data, Examples

with deferred("numpy", "safetensors.numpy"):
    import numpy as np
    import safetensors.numpy as tensor_file


@dataclass(frozen=True)
class Output:
    """Predictions of a node for one split of one task: n example ids and float32 scores [n, k]."""

    ids: tuple[str, ...]
    scores: np.ndarray

    def fault(self) -> str:
        """Return why the output cannot be stored and aligned by ids, or an empty string."""
        ids, scores = self.ids, self.scores
        if scores.dtype != np.float32 or scores.ndim != 2 or not scores.shape[1]:
            return f"the scores are {scores.dtype} {list(scores.shape)}, not float32 [n, k]"
        if len(ids) != len(scores):
            return f"there are {len(ids)} ids for {len(scores)} rows of scores"
        if any(not name or "\n" in name for name in ids):
            return "an id is empty or has more than one line"
        if len(set(ids)) != len(ids):
            return f"the id `{next(name for name in ids if ids.count(name) > 1)}` occurs more than once"
        finite = np.isfinite(scores).all(axis=1)
        return "" if finite.all() else f"the scores of `{ids[int(finite.argmin())]}` are not finite"


@dataclass(frozen=True)
class Predictions:
    """All outputs of one node, `outputs[split][task]`; ensembles and tables use nothing else of a model."""

    outputs: Mapping[str, Mapping[str, Output]]

    def has(self, task: str) -> bool:
        """Return whether the node predicts a task on any split."""
        return any(task in by_task for by_task in self.outputs.values())

    def find(self, data: Data, split: str, task: str, whose: str = "") -> np.ndarray | None:
        """Return the scores [n, k] in the suite's order, or None if the node or the suite lacks the split or task.

        Raise RegistryError, with `whose` as the node's name, if ids or k do not match the suite.
        """
        output, examples = self.outputs.get(split, {}).get(task), data.splits[task].get(split)
        if output is None or examples is None:
            return None
        what = f"the predictions{whose and f' of {whose}'} for `{task}` on {split}"
        width, wanted = output.scores.shape[1], data.tasks[task].outputs
        if width != wanted:
            raise RegistryError(f"{what} have {width} scores an example, but the task has {wanted}")
        return aligned(output, examples, what)

    def with_suite_ids(self, data: Data) -> Predictions:
        """Replace ids that equal the suite's by the suite's own tuples, which makes later comparisons cheap."""
        def shared(split: str, task: str, output: Output) -> Output:
            examples = data.splits[task].get(split) if task in data.splits else None
            return Output(examples.ids, output.scores) if examples and examples.ids == output.ids else output

        return Predictions({split: {task: shared(split, task, output) for task, output in by_task.items()}
                            for split, by_task in self.outputs.items()})

    def to_bytes(self) -> bytes:
        """Serialize to the bytes of the file; raise TrainingError for what could not be read back, such as nan."""
        tensors: dict[str, np.ndarray] = {}
        for split, by_task in self.outputs.items():
            for task, output in by_task.items():
                if fault := output.fault():
                    raise TrainingError(f"the predictions for `{task}` on {split} cannot be kept: {fault}")
                tensors[f"{split}/{task}/scores"] = np.ascontiguousarray(output.scores)
                tensors[f"{split}/{task}/ids"] = np.frombuffer("\n".join(output.ids).encode(), np.uint8)
        return tensor_file.save(tensors)

    @classmethod
    def from_bytes(cls, data: bytes, shown_as: str) -> Predictions:
        """Parse the bytes of a file; raise RegistryError, which names the file, if they are damaged."""
        try:
            return cls(_outputs(_tensors(data)))
        except ValueError as error:
            raise RegistryError(Problem("a predictions file is damaged", Place(shown_as), (str(error),))) from None

    @classmethod
    def read(cls, path: Path) -> Predictions:
        """Return the Predictions in a file; raise RegistryError for damage, StorageError if it cannot be read."""
        with reported("read", path):
            data = path.read_bytes()
        return cls.from_bytes(data, str(path))


def join_epochs(epochs: Sequence[Predictions]) -> Predictions:
    """Concatenate the scores of several epochs for the same examples to [n, epochs * k]."""
    return Predictions({
        split: {task: Output(output.ids, np.hstack([epoch.outputs[split][task].scores for epoch in epochs]))
                for task, output in by_task.items()}
        for split, by_task in epochs[0].outputs.items()})


def split_epochs(joined: Predictions, data: Data) -> list[Predictions]:
    """Undo `join_epochs`; raise RegistryError if the tasks' widths do not give the same number of epochs."""
    epochs: list[dict[str, dict[str, Output]]] = []
    for split, by_task in joined.outputs.items():
        for task, output in by_task.items():
            wide, width = output.scores.shape[1], data.tasks[task].outputs if task in data.tasks else 0
            epochs = epochs or [{} for _ in range(wide // max(width, 1))]
            if not width or wide != width * len(epochs):
                raise RegistryError(f"the scores of `{task}` on {split} are not those of {len(epochs)} epochs")
            for epoch, scores in zip(epochs, np.hsplit(output.scores, len(epochs)), strict=True):
                epoch.setdefault(split, {})[task] = Output(output.ids, scores)
    return [Predictions(outputs) for outputs in epochs]


def _tensors(data: bytes) -> dict[str, np.ndarray]:
    """Parse a safetensors file; raise ValueError."""
    try:
        return tensor_file.load(data)
    except SafetensorError as error:
        raise ValueError(f"it is not a whole safetensors file ({error})") from None
    except KeyError as error:
        raise ValueError(f"it has numbers of the type {error}, which numpy lacks") from None


def _outputs(tensors: Mapping[str, np.ndarray]) -> dict[str, dict[str, Output]]:
    """Build outputs by split and task from tensors by name; raise ValueError."""
    outputs: dict[str, dict[str, Output]] = {}
    for name in sorted(tensors):
        split, _, rest = name.partition("/")
        task, _, kind = rest.rpartition("/")
        if split not in SPLITS or not task or kind not in ("ids", "scores"):
            raise ValueError(f"`{name}` is not of the form dev/TASK/scores or dev/TASK/ids")
        ids, scores = (tensors.get(f"{split}/{task}/{part}") for part in ("ids", "scores"))
        if ids is None or scores is None:
            raise ValueError(f"`{split}/{task}` has not both ids and scores")
        if kind == "scores":
            outputs.setdefault(split, {})[task] = _output(name, ids, scores)
    if not outputs:
        raise ValueError("it holds no predictions")
    return outputs


def _output(name: str, ids: np.ndarray, scores: np.ndarray) -> Output:
    """Build and check one output; raise ValueError."""
    if ids.dtype != np.uint8 or ids.ndim != 1:
        raise ValueError(f"the ids of `{name}` are {ids.dtype} {list(ids.shape)}, not bytes")
    try:
        text = ids.tobytes().decode()
    except UnicodeDecodeError:
        raise ValueError(f"the ids of `{name}` are not UTF-8") from None
    output = Output(tuple(text.split("\n")) if text else (), scores)
    if fault := output.fault():
        raise ValueError(f"in `{name}`, {fault}")
    return output


def aligned(output: Output, examples: Examples, what: str = "the predictions") -> np.ndarray:
    """Return the scores [n, k] in the order of the examples; raise RegistryError if the ids differ."""
    if output.ids is examples.ids or output.ids == examples.ids:
        return output.scores
    rows = {name: row for row, name in enumerate(output.ids)}
    lacking = [name for name in examples.ids if name not in rows]
    foreign = sorted(rows.keys() - set(examples.ids))
    if lacking or foreign or len(output.ids) != len(examples.ids):
        raise RegistryError(_difference(what, lacking, foreign, len(output.ids) - len(rows)))
    return output.scores[[rows[name] for name in examples.ids]]


def _difference(what: str, lacking: list[str], foreign: list[str], repeated: int) -> Problem:
    """Build the problem for predictions whose ids are not those of the suite."""
    notes = [f"{len(names)} {kind}, such as `{names[0]}`" for kind, names in
             (("of the suite's ids are missing", lacking), ("ids are not in the suite", foreign)) if names]
    notes += [f"{repeated} rows repeat an id"] if repeated else []
    return Problem(f"{what} are not for this suite's examples", notes=tuple(notes), hint="predict this suite again")
