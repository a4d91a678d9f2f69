"""Predictions files and metrics: round trips, damage, and scikit-learn and scipy as independent implementations."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score

from runner.errors import RegistryError, StorageError, TrainingError
from runner.tasks.data import Data, Examples, Task
from runner.tasks.metrics import metric, overall, pearson, score, score_split
from runner.tasks.predictions import Output, Predictions, aligned

TASKS = {
    "sentiment": Task(title="SST", kind="classification", classes=5),
    "paraphrase": Task(title="Quora", kind="binary", sentences=2),
    "similarity": Task(title="STS", kind="regression", high=5.0, sentences=2),
}
FLOATS = st.floats(-1e6, 1e6, width=32)


def examples(n: int, labels: list[float] | np.ndarray | None = None) -> Examples:
    names = tuple(f"e{i}" for i in range(n))
    return Examples(names, names, labels=None if labels is None else np.asarray(labels, np.float64))


def output(scores: list[list[float]], ids: tuple[str, ...] = ()) -> Output:
    array = np.array(scores, np.float32)
    return Output(ids or tuple(f"e{i}" for i in range(len(array))), array)


def random_output(rng: np.random.Generator, n: int, k: int) -> Output:
    return Output(tuple(f"e{i}" for i in range(n)), rng.standard_normal((n, k)).astype(np.float32))


def same(left: Predictions, right: Predictions) -> bool:
    """Compare two Predictions to the bit."""
    flat = [{(split, task): (o.ids, o.scores.shape, o.scores.tobytes()) for split, by_task in p.outputs.items()
             for task, o in by_task.items()} for p in (left, right)]
    return flat[0] == flat[1]


# ---------------------------------------------------------------------------------------------------------- the file

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), min_size=1, max_size=8)


@st.composite
def outputs(draw: st.DrawFn) -> Output:
    ids = draw(st.lists(NAMES, unique=True, max_size=6))
    scores = draw(hnp.arrays(np.float32, (len(ids), draw(st.integers(1, 5))),
                             elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
    return Output(tuple(ids), scores)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["train", "dev", "test"]),
                       st.dictionaries(st.sampled_from([*TASKS, "a/b"]), outputs(), min_size=1), min_size=1))
def test_a_file_gives_back_what_was_written(content: dict[str, dict[str, Output]]) -> None:
    written = Predictions(content)
    data = written.to_bytes()
    assert same(Predictions.from_bytes(data, "p"), written)
    turned = {split: dict(reversed(by_task.items())) for split, by_task in reversed(content.items())}
    assert Predictions(turned).to_bytes() == data


def test_the_bytes_are_those_of_the_documented_format() -> None:
    scores = np.array([[0.5, -1.0], [2.0, 3.0]], np.float32)
    header = json.dumps({
        "dev/sentiment/scores": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "dev/sentiment/ids": {"dtype": "U8", "shape": [4], "data_offsets": [16, 20]},
    }, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    expected = struct.pack("<Q", len(header)) + header + scores.tobytes() + "a\né".encode()
    assert Predictions({"dev": {"sentiment": Output(("a", "é"), scores)}}).to_bytes() == expected


def test_an_array_in_another_memory_order_is_written_by_its_values() -> None:
    scores = np.arange(6, dtype=np.float32).reshape(2, 3)
    plain, turned = (Predictions({"dev": {"t": Output(("a", "b"), s)}}) for s in (scores, np.asfortranarray(scores)))
    assert plain.to_bytes() == turned.to_bytes()


def test_every_flipped_bit_and_every_cut_is_noticed_or_changes_a_value_only() -> None:
    """A changed number is for the manifest's sha256 to find; here nothing but our own error may come out."""
    original = Predictions({"dev": {"sentiment": output([[0.5, -1.0], [2.0, 3.0]]), "similarity": output([[1.0]])}})
    data = original.to_bytes()
    values_from = len(data) - 5 * 4 - len("e0\ne1") - len("e0")
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            try:
                read = Predictions.from_bytes(bytes(damaged), "some/file")
            except RegistryError as error:
                assert "some/file" in error.render()
                continue
            assert position >= values_from or same(read, original)
            assert [o.fault() for by_task in read.outputs.values() for o in by_task.values()] == [""] * 2
    for length in range(len(data)):
        with pytest.raises(RegistryError):
            Predictions.from_bytes(data[:length], "p")


IDS = np.frombuffer(b"a\nb", np.uint8)
TWO = np.zeros((2, 1), np.float32)


@pytest.mark.parametrize(("tensors", "said"), [
    ({}, "it holds no predictions"),
    ({"dev/t/scores": TWO}, "has not both"),
    ({"dev/t/ids": IDS}, "has not both"),
    ({"dev/t/scores": TWO, "dev/t/ids": IDS, "model.weight": TWO}, "not of the form"),
    ({"later/t/scores": TWO, "later/t/ids": IDS}, "not of the form"),
    ({"dev//scores": TWO, "dev//ids": IDS}, "not of the form"),
    ({"dev/t/scores": TWO, "dev/t/ids": IDS.astype(np.int64)}, "not bytes"),
    ({"dev/t/scores": TWO, "dev/t/ids": np.array([0xFF, 0x0A, 0x61], np.uint8)}, "not UTF-8"),
    ({"dev/t/scores": TWO, "dev/t/ids": np.frombuffer(b"a\na", np.uint8)}, "`a` occurs more than once"),
    ({"dev/t/scores": TWO, "dev/t/ids": np.frombuffer(b"a\n", np.uint8)}, "an id is empty"),
    ({"dev/t/scores": TWO[:1], "dev/t/ids": IDS}, "2 ids for 1 rows"),
    ({"dev/t/scores": TWO.astype(np.float64), "dev/t/ids": IDS}, "float64 [2, 1], not float32"),
    ({"dev/t/scores": TWO[:, 0].copy(), "dev/t/ids": IDS}, "[2], not float32 [n, k]"),
    ({"dev/t/scores": np.zeros((2, 0), np.float32), "dev/t/ids": IDS}, "[2, 0], not float32 [n, k]"),
    ({"dev/t/scores": np.array([[0], [np.nan]], np.float32), "dev/t/ids": IDS}, "scores of `b` are not finite"),
    ({"dev/t/scores": np.array([[np.inf], [0]], np.float32), "dev/t/ids": IDS}, "scores of `a` are not finite"),
])
def test_a_file_that_says_something_else_is_refused(tensors: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(RegistryError) as caught:
        Predictions.from_bytes(save(tensors), "runs/x.safetensors")
    assert said in caught.value.render()
    assert "runs/x.safetensors" in caught.value.render()


def test_numbers_that_numpy_lacks_are_refused() -> None:
    header = json.dumps({"dev/t/scores": {"dtype": "BF16", "shape": [1, 1], "data_offsets": [0, 2]}}).encode()
    with pytest.raises(RegistryError) as caught:
        Predictions.from_bytes(struct.pack("<Q", len(header)) + header + b"\0\0", "p")
    assert "BF16" in caught.value.render()


def test_what_could_not_be_read_back_is_not_written() -> None:
    for bad in (output([[np.nan]]), output([[1.0], [2.0]], ("a", "a")), output([[1.0]], ("a\nb",))):
        with pytest.raises(TrainingError, match="`t` on dev cannot be kept"):
            Predictions({"dev": {"t": bad}}).to_bytes()


def test_read_names_the_file_that_is_damaged_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"no")
    with pytest.raises(RegistryError) as caught:
        Predictions.read(tmp_path / "p")
    assert str(tmp_path / "p") in caught.value.render()
    with pytest.raises(StorageError, match="absent"):
        Predictions.read(tmp_path / "absent")


# --------------------------------------------------------------------------------------------------------- alignment

@settings(deadline=None)
@given(st.permutations(range(7)))
def test_aligned_finds_each_row_by_its_id(order: list[int]) -> None:
    shuffled = output([[float(i)] for i in order], tuple(f"e{i}" for i in order))
    assert aligned(shuffled, examples(7))[:, 0].tolist() == list(range(7))


@pytest.mark.parametrize(("ids", "said"), [
    (("e0", "e1"), "1 of the suite's ids are missing, such as `e2`"),
    (("e0", "e1", "e2", "x"), "1 ids are not in the suite, such as `x`"),
    (("e0", "e1", "e2", "e2"), "1 rows repeat an id"),
])
def test_other_ids_are_refused(ids: tuple[str, ...], said: str) -> None:
    with pytest.raises(RegistryError) as caught:
        aligned(output([[0.0]] * len(ids), ids), examples(3), "those of run 12ab")
    assert said in caught.value.render()
    assert "those of run 12ab" in caught.value.render()


def test_find_refuses_another_number_of_classes_and_says_whose() -> None:
    data = Data(TASKS, {name: {"dev": examples(2, [0, 1])} for name in TASKS})
    wrong = Predictions({"dev": {"sentiment": output([[0.0] * 3] * 2)}})
    with pytest.raises(RegistryError, match=r"of 12ab for `sentiment` on dev have 3 scores .* has 5"):
        wrong.find(data, "dev", "sentiment", "12ab")
    assert wrong.find(data, "dev", "paraphrase") is None
    assert wrong.find(data, "test", "sentiment") is None


# ----------------------------------------------------------------------------------------------------------- metrics

@settings(deadline=None)
@given(hnp.arrays(np.float32, (20, 5), elements=st.sampled_from([0.0, 0.5, 1.0, -1.0])),
       hnp.arrays(np.float64, 20, elements=st.integers(0, 4)))
def test_classification_is_accuracy_with_ties_to_the_lower_class(scores: np.ndarray, labels: np.ndarray) -> None:
    said = [max(range(5), key=lambda c, row=row: (row[c], -c)) for row in scores.tolist()]
    assert metric(TASKS["sentiment"], scores, labels) == pytest.approx(accuracy_score(labels, said), abs=1e-12)


@settings(deadline=None)
@given(hnp.arrays(np.float32, (20, 1), elements=FLOATS | st.just(0.0)),
       hnp.arrays(np.float64, 20, elements=st.integers(0, 1)))
def test_binary_is_accuracy_above_zero(scores: np.ndarray, labels: np.ndarray) -> None:
    said = [int(x > 0) for x in scores[:, 0].tolist()]
    assert metric(TASKS["paraphrase"], scores, labels) == pytest.approx(accuracy_score(labels, said), abs=1e-12)


def test_a_binary_logit_of_zero_says_no() -> None:
    assert metric(TASKS["paraphrase"], np.zeros((4, 1), np.float32), np.array([0.0, 0, 0, 1])) == 0.75


TENTHS = st.integers(0, 50).map(lambda x: x / 10)


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 40).flatmap(lambda n: st.tuples(hnp.arrays(np.float32, n, elements=FLOATS),
                                                      hnp.arrays(np.float64, n, elements=TENTHS))))
def test_pearson_is_scipys(pair: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = pair
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert pearson(x, y) == 0.0
        return
    expected = pearsonr(x.astype(np.float64), y).statistic
    assert pearson(x, y) == pytest.approx(expected, abs=1e-9)
    assert pearson(y, x) == pearson(x, y)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e30, 1e300])
def test_pearson_does_not_over_or_underflow(scale: float) -> None:
    assert pearson(np.array([1.0, 2, 3, 4]) * scale, np.array([2.0, 4, 6, 8])) == pytest.approx(1.0)
    assert pearson(np.array([4.0, 3, 2, 1]) * scale, np.array([2.0, 4, 6, 8])) == pytest.approx(-1.0)


@settings(deadline=None)
@given(FLOATS, st.integers(1, 50))
def test_constant_predictions_have_no_correlation(value: float, n: int) -> None:
    assert pearson(np.full(n, value, np.float32), np.arange(n)) == 0.0
    assert pearson(np.arange(n), np.full(n, value, np.float32)) == 0.0


# ----------------------------------------------------------------------------------------------------------- overall

@pytest.mark.parametrize(("row", "expected"), [((0.513, 0.752, 0.545), 0.679), ((0.490, 0.751, 0.557), 0.673)])
def test_overall_of_the_papers_table_4(row: tuple[float, float, float], expected: float) -> None:
    assert round(overall(dict(zip(TASKS, row, strict=True)), TASKS) or 0, 3) == expected


def test_overall_needs_every_task_of_the_suite() -> None:
    assert overall({"sentiment": 0.5, "paraphrase": 0.5}, TASKS) is None
    assert overall({"sentiment": 0.5, "paraphrase": 0.5, "similarity": None}, TASKS) is None
    assert overall({"sentiment": 0.25, "elsewhere": 1.0}, {"sentiment": TASKS["sentiment"]}) == 0.25
    assert overall({"similarity": -1.0}, {"similarity": TASKS["similarity"]}) == 0.0


def random_data(rng: np.random.Generator, n: int = 40, test_labels: bool = True) -> Data:
    labels = {"sentiment": (0, 5), "paraphrase": (0, 2), "similarity": (0, 6)}
    known = ("dev", "test") if test_labels else ("dev",)
    return Data(TASKS, {task: {split: examples(n, rng.integers(*labels[task], n) if split in known else None)
                               for split in ("dev", "test")} for task in TASKS})


def test_score_is_plain_json_to_six_digits_and_the_same_bytes_each_time() -> None:
    rng = np.random.default_rng(1)
    data = random_data(rng)
    made = Predictions({split: {name: random_output(rng, 40, task.outputs) for name, task in TASKS.items()}
                        for split in ("test", "dev")})
    scores = score(made, data)
    assert list(scores) == ["dev", "test"]
    for split, columns in scores.items():
        labels = {name: data.splits[name][split].labels for name in TASKS}
        found = {name: o.scores for name, o in made.outputs[split].items()}
        accuracy = accuracy_score(labels["sentiment"], found["sentiment"].argmax(1))
        yes = accuracy_score(labels["paraphrase"], found["paraphrase"][:, 0] > 0)
        r = pearsonr(found["similarity"][:, 0].astype(np.float64), labels["similarity"]).statistic
        mean = (accuracy + yes + (r + 1) / 2) / 3
        expected = {"sentiment": accuracy, "paraphrase": yes, "similarity": r, "overall": mean}
        assert columns == {name: round(float(value), 6) for name, value in expected.items()}
    again = Predictions.from_bytes(made.to_bytes(), "p")
    assert json.dumps(score(again, data)) == json.dumps(scores)


def test_a_split_without_labels_or_predictions_has_no_scores() -> None:
    rng = np.random.default_rng(2)
    made = Predictions({split: {"sentiment": random_output(rng, 40, 5)} for split in ("dev", "test")})
    scores = score(made, random_data(rng, test_labels=False))
    assert list(scores) == ["dev"]
    assert {name for name, value in scores["dev"].items() if value is None} == {"paraphrase", "similarity", "overall"}
    assert score(Predictions({}), random_data(rng)) == {}


def test_minus_zero_is_never_written() -> None:
    labels = np.array([0.0, 1, 1, 0])
    almost = output([[1 + 2**-22], [0], [1], [0]])
    assert -1e-6 < pearson(almost.scores[:, 0], labels) < 0
    data = Data({"similarity": TASKS["similarity"]}, {"similarity": {"dev": examples(4, labels)}})
    assert json.dumps(score_split(Predictions({"dev": {"similarity": almost}}), data, "dev")["similarity"]) == "0.0"
