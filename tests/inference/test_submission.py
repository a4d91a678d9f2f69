"""The course's files: its exact bytes, what they hold, and that they score as the evaluation does."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score
from systems import mtrun

from runner.errors import DataError
from runner.inference import submission
from runner.plan.planner import make_plan
from runner.tasks.data import Data, Examples, Task
from runner.tasks.predictions import Output, Predictions

TASKS = {
    "sentiment": Task(title="SST", kind="classification", classes=5),
    "paraphrase": Task(title="Quora", kind="binary", sentences=2),
    "similarity": Task(title="STS", kind="regression", high=5.0, sentences=2),
}
SCORES = {"sentiment": [[0, 0, 0, 1, 0], [9, 0, 0, 0, 9]], "paraphrase": [[-0.5], [2.0]],
          "similarity": [[2.7182817], [-0.1]]}


def one(ids: tuple[str, ...] = ("a1", "b2"), hidden: bool = True) -> tuple[Predictions, Data]:
    labels = None if hidden else np.array([3.0, 0.0])
    data = Data(TASKS, {task: {"dev": Examples(ids, ids, ids, labels)} for task in TASKS})
    outputs = {task: Output(ids, np.array(scores, np.float32)) for task, scores in SCORES.items()}
    return Predictions({"dev": outputs}), data


def test_the_bytes_are_those_of_the_starter_code() -> None:
    texts = {sheet.name: sheet.text() for sheet in submission.sheets(*one())}
    assert texts == {
        "sst-dev-output.csv": "id \t Predicted_Sentiment \na1 , 3 \nb2 , 0 \n",
        "para-dev-output.csv": "id \t Predicted_Is_Paraphrase \na1 , 0.0 \nb2 , 1.0 \n",
        "sts-dev-output.csv": "id \t Predicted_Similiary \na1 , 2.7182817 \nb2 , -0.1 \n",
    }


@pytest.mark.parametrize(("ids", "message"), [(("a b", "c"), "the id `a b` has blanks"), (("a,b", "c"), "the id `a,b`"),
                                              (("a\n", "c"), "the id"), (("a", "a"), "1 ids for 2 rows")])
def test_ids_that_would_break_a_file_are_refused(ids: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        submission.sheets(*one(ids))
    assert len(raised.value.problems) == 3, "of each file"


def test_what_is_no_class_or_number_is_refused() -> None:
    for said, message in (([3, 5], "it says 5"), ([-1, 0], "it says -1")):
        (fault,) = submission.Sheet("x", TASKS["sentiment"], ("a", "b"), np.array(said), None).faults()
        assert message in fault
    (fault,) = submission.Sheet("x", TASKS["similarity"], ("a",), np.array([np.nan], np.float32), None).faults()
    assert "not finite" in fault


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_scores_come_back_bit_by_bit(values: list[float]) -> None:
    ids = tuple(map(str, range(len(values))))
    said = np.array(values, np.float32)
    text = submission.Sheet("x", TASKS["similarity"], ids, said, None).text()
    back = submission.read(text, "x")
    assert tuple(back) == ids
    assert np.array(list(back.values()), np.float32).tobytes() == said.tobytes()


@pytest.mark.parametrize(("text", "line"), [("id,label\na , 1 \n", 1), ("id \t Predicted_Sentiment \na , 1 \nb\n", 3)])
def test_another_file_is_told_from_a_submission(text: str, line: int) -> None:
    with pytest.raises(DataError) as raised:
        submission.read(text, "x.csv")
    assert raised.value.problems[0].place.line == line  # type: ignore[union-attr]


def test_what_is_written_scores_as_the_evaluation(trained: Path, tmp_path: Path) -> None:
    done = mtrun(trained, "submit", "specs/deep.toml", "-o", str(tmp_path))
    assert done.code == 0 and not done.err
    plan = make_plan(trained, [trained / "specs" / "deep.toml"], "demo")
    data = plan.data[plan.nodes[plan.roots["deep"]].suite]
    published = json.loads((trained / "results" / "demo" / "deep.json").read_bytes())["tree"]["scores"]
    archive = zipfile.ZipFile(tmp_path / submission.ARCHIVE)
    assert sorted(archive.namelist()) == sorted(f"predictions/{p.name}" for p in (tmp_path / "predictions").iterdir())
    for task, name in submission.FILES.items():
        for split in ("dev", "test"):
            file = tmp_path / "predictions" / f"{name}-{split}-output.csv"
            assert archive.read(f"predictions/{file.name}") == file.read_bytes()
            said = submission.read(file.read_text(), str(file))
            examples = data.splits[task][split]
            assert tuple(said) == examples.ids and examples.labels is not None
            values = list(said.values())
            found = pearsonr(examples.labels, values).statistic if task == "similarity" else \
                accuracy_score(examples.labels, values)
            assert found == pytest.approx(published[split][task], abs=1e-6)
            assert f"{published[split][task]:.3f}" in next(row for row in done.out.splitlines() if file.name in row)
    again = mtrun(trained, "submit", "specs/deep.toml", "-o", str(tmp_path / "again"))
    assert again.code == 0
    assert (tmp_path / "again" / submission.ARCHIVE).read_bytes() == (tmp_path / submission.ARCHIVE).read_bytes()


def test_files_that_are_not_there_are_told() -> None:
    predictions, data = one()
    del data.splits["similarity"]["dev"]  # type: ignore[attr-defined]
    made = submission.sheets(Predictions({"dev": {"sentiment": predictions.outputs["dev"]["sentiment"]}}), data)
    assert submission.missing(made, data) == [
        "no sst-test-output.csv: the suite has no test data of sentiment",
        "no para-dev-output.csv: the system does not predict it",
        "no para-test-output.csv: the suite has no test data of paraphrase",
        "no sts-dev-output.csv: the suite has no dev data of similarity",
        "no sts-test-output.csv: the suite has no test data of similarity",
    ]


def test_what_is_handed_in_can_be_a_member_of_an_ensemble(trained: Path, tmp_path: Path) -> None:
    root = shutil.copytree(trained, tmp_path / "copy")
    assert mtrun(root, "submit", "specs/deep.toml").code == 0
    member = f"../submissions/demo/deep/{submission.SCORES}"
    (root / "specs" / "again.toml").write_text(
        f'kind = "ensemble"\n[tree]\ntype = "average"\nmembers = ["{member}"]\n')
    done = mtrun(root, "build", "specs/again.toml")
    assert done.code == 0, done.err
    again, deep = (json.loads((root / "results" / "demo" / f"{name}.json").read_bytes())["tree"]["scores"]
                   for name in ("again", "deep"))
    assert again == deep
