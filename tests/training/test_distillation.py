"""Students: the loss against its definition, what a teacher says, resuming, what a plan makes of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from builds import built, mtrun, names
from projects import project

from runner.errors import DataError, SpecError
from runner.parts.losses import Loss
from runner.parts.losses.bce import BinaryCrossEntropy
from runner.parts.losses.cosine_embedding import CosineEmbedding
from runner.parts.losses.cross_entropy import CrossEntropy
from runner.parts.losses.mse import SquaredError
from runner.plan.plan import Plan, PlannedNode
from runner.plan.planner import make_plan
from runner.registry.attempt import Attempt
from runner.registry.registry import Registry, Run
from runner.specs.job import TrainingJob
from runner.specs.spec import Leaf
from runner.tasks.data import Data, Task
from runner.training import distillation, stored_model
from runner.training.distillation import DistillationLoss
from runner.worker.supervisor import Supervisor
from runner.worker.worker import run, trainer_of

FAST = 'kind = "model"\nextends = "sum.toml"\n[optimizer]\nlr_scale = 4.0\n'
TREE = ('kind = "ensemble"\n[tree]\ntype = "average"\nmembers = ["sum.toml", '
        '{ type = "best", by = "paraphrase", members = ["sum.toml", "fast.toml"] }]\n')
STUDENT = 'kind = "model"\nextends = "sum.toml"\n[teacher]\nspec = "tree.toml"\n'
LABELS = STUDENT + "labels = 1.0\n"
WARM = STUDENT + "temperature = 3.0\n"
OTHER = STUDENT.replace("tree", "fast")
MORE = STUDENT + '[teacher.unlabelled]\nsentiment = "more.txt"\nparaphrase = "pairs.tsv"\n'
SPECS = {"fast": FAST, "tree": TREE, "student": STUDENT, "labels": LABELS, "warm": WARM, "other": OTHER, "more": MORE}

CLASSES = Task(title="C", kind="classification", classes=3)
BINARY = Task(title="B", kind="binary")
SCALE = Task(title="R", kind="regression", high=5.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose student is built."""
    root = project(tmp_path_factory.mktemp("teaching"), **SPECS)
    write_more(root)
    events = built(root, "student", "labels", "more")
    assert names(events, "trained")[:2] == ["sum", "fast"], "the teacher's leaves come first"
    assert events[-1].values["failed"] == 0
    return root


def write_more(root: Path) -> None:
    (root / "more.txt").write_text("a fine film\nno\n\N{SNOWMAN} who knows\n")
    (root / "pairs.tsv").write_text("is it late\tis it early\n")


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def planned(root: Path, *specs: str, settings: Sequence[str] = ()) -> Plan:
    return make_plan(root, [root / "specs" / f"{spec}.toml" for spec in specs], "demo", settings)


def finished(root: Path, name: str) -> Run:
    return next(run for run in Registry(root / "registry").runs() if run.manifest["name"] == name)


# The loss ------------------------------------------------------------------------------------------------------

def definition(own: Loss, scores: torch.Tensor, label: torch.Tensor, taught: torch.Tensor, task: Task, share: float,
               heat: float) -> torch.Tensor:
    """The loss of one example, from the words of `Teacher`."""
    if task.kind == "classification":
        soft = torch.exp(taught / heat) / torch.exp(taught / heat).sum()
        odds = torch.log(torch.exp(scores / heat) / torch.exp(scores / heat).sum())
        said = -heat**2 * (soft * odds).sum()
    elif task.kind == "binary":
        said = heat**2 * own.each(scores[None] / heat, 1 / (1 + torch.exp(-taught / heat)), task)[0]
    else:
        said = own.each(scores[None], taught, task)[0]
    if label.isnan():
        return (1 - share) * said
    return share * own.each(scores[None], label[None], task)[0] + (1 - share) * said


@pytest.mark.parametrize(("own", "task"), [
    (CrossEntropy(), CLASSES), (BinaryCrossEntropy(), BINARY), (SquaredError(), BINARY), (SquaredError(), SCALE),
    (BinaryCrossEntropy(), SCALE), (CosineEmbedding(), SCALE)], ids=str)
@pytest.mark.parametrize(("share", "heat"), [(0.0, 1.0), (0.5, 2.0), (0.25, 0.5), (1.0, 3.0)])
def test_loss_and_gradient_are_those_of_the_definition(own: Loss, task: Task, share: float, heat: float) -> None:
    torch.manual_seed(1)
    width = task.outputs
    scores = torch.randn(6, width, dtype=torch.float64, requires_grad=True)
    label = torch.tensor([0, 1, 1, 0, 1, float("nan")], dtype=torch.float64)
    taught = torch.rand(6, width, dtype=torch.float64) * 4
    loss = DistillationLoss(own=own, share=share, temperature=heat)
    each = loss.each(scores, torch.cat([label[:, None], taught], 1), task)
    wanted = torch.stack([definition(own, scores[n], label[n], taught[n], task, share, heat) for n in range(6)])
    torch.testing.assert_close(each, wanted)
    mine, theirs = (torch.autograd.grad(loss.sum(), scores)[0] for loss in (each, wanted))
    torch.testing.assert_close(mine, theirs)
    assert mine.isfinite().all()


def test_a_hot_teacher_is_matched_in_logits_and_a_cold_sure_one_is_a_label() -> None:
    """Hinton et al., equation 4: as T grows, the gradient is (z - v) / k for logits whose mean is 0."""
    torch.manual_seed(2)
    scores, taught = (torch.randn(4, 3, dtype=torch.float64) for _ in range(2))
    scores, taught = (one - one.mean(1, keepdim=True) for one in (scores, taught))
    scores.requires_grad_()
    hot = DistillationLoss(own=CrossEntropy(), share=0.0, temperature=1000.0)
    nothing = torch.full((4, 1), float("nan"), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(hot.each(scores, torch.cat([nothing, taught], 1), CLASSES).sum(), scores)
    torch.testing.assert_close(gradient, (scores - taught).detach() / 3, rtol=1e-2, atol=1e-3)
    cold, label = DistillationLoss(own=CrossEntropy(), share=0.0, temperature=1.0), torch.tensor([0, 2, 1, 1])
    sure = 1e3 * torch.nn.functional.one_hot(label, 3).double()
    torch.testing.assert_close(cold.each(scores, torch.cat([nothing, sure], 1), CLASSES),
                               torch.nn.functional.cross_entropy(scores, label, reduction="none"))


def test_scores_are_brought_to_the_labels_scale() -> None:
    random = np.random.default_rng(3)
    scores, labels = random.normal(size=(50, 1)) * 7 + 30, np.append(random.uniform(0, 5, 40), [np.nan] * 10)
    slope, middle = np.polyfit(scores[:40, 0], labels[:40], 1)
    wanted = np.clip(slope * scores + middle, 0, 5)
    np.testing.assert_allclose(distillation.on_scale(scores, labels, SCALE), wanted, rtol=1e-9)
    np.testing.assert_allclose(distillation.on_scale(np.full((50, 1), 3.0), labels, SCALE), np.nanmean(labels))
    steep = distillation.on_scale(np.arange(50.0)[:, None], np.append(np.linspace(0, 5, 40), [np.nan] * 10), SCALE)
    assert steep.max() == 5.0 and np.isclose(steep[39], 5.0)


# What the teacher says -----------------------------------------------------------------------------------------

def ordered(root: Path, name: str) -> tuple[TrainingJob, Data, PlannedNode]:
    """Return the job of a leaf, its suite's examples and its node."""
    plan = planned(root, name)
    node = plan.nodes[plan.roots[name]]
    assert isinstance(node.spec, Leaf)
    return TrainingJob(node.id, name, root, node.spec.model, "", node.trees), plan.data[node.suite], node


def lesson(root: Path, name: str) -> Data:
    job, data, _ = ordered(root, name)
    return distillation.targets(job, data, Registry(root / "registry"), torch.device("cpu"))


def applied(root: Path, name: str, data: Data, task: str) -> np.ndarray:
    """What a leaf says of training sentences, one at a time, by its weights."""
    from safetensors.torch import load

    job, suite, _ = ordered(root, name)
    trainer = trainer_of(job.model, suite, root, root / "registry" / ".cache", data)
    network = trainer.network.eval()
    network.load_state_dict(load(finished(root, name).read("model.safetensors")))
    examples = data.splits[task]["train"]
    said = []
    with torch.no_grad():
        for row in range(len(examples)):
            texts = [side[row] for side in (examples.first, examples.second) if side]
            packed = trainer.batches.tokens.pack(trainer.batches.tokens.rows(texts), (len(texts),))
            said.append(network.scores(task, tuple(network.embed(packed, (task,)).split(1)))[0].numpy())
    return np.stack(said)


def test_a_lesson_is_the_labels_and_what_the_tree_says(made: Path) -> None:
    data, plain = lesson(made, "more"), ordered(made, "more")[1]
    dev = {name: finished(made, name).manifest["dev"]["paraphrase"] for name in ("sum", "fast")}
    best = max(("sum", "fast"), key=lambda name: (dev[name], -int(finished(made, name).id, 16)))
    for task, extra in (("sentiment", 3), ("paraphrase", 1), ("similarity", 0)):
        train, labels = data.splits[task]["train"], plain.splits[task]["train"].labels
        assert train.labels is not None and labels is not None and len(train) == len(labels) + extra
        np.testing.assert_array_equal(train.labels[: len(labels), 0], labels)
        assert np.isnan(train.labels[len(labels):, 0]).all()
        wanted = (applied(made, "sum", data, task).astype(np.float64) + applied(made, best, data, task)) / 2
        if task == "similarity":
            wanted = distillation.on_scale(wanted, train.labels[:, 0], plain.tasks[task])
        np.testing.assert_allclose(train.labels[:, 1:], wanted, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(data.splits[task]["dev"].labels, plain.splits[task]["dev"].labels)


def test_what_a_leaf_said_is_remembered_by_content(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = lesson(root, "student").sha256()
    files = sorted((root / "registry" / ".cache").glob("teaching-*"))
    assert len(files) == 4, "two leaves, with and without more sentences"
    with monkeypatch.context() as patch:
        patch.setattr(stored_model, "Network", None)
        assert lesson(root, "student").sha256() == wanted
    for file in files:
        file.write_bytes(file.read_bytes()[:-8] + bytes(8))
    assert lesson(root, "student").sha256() == wanted, "a damaged one is made again"


@pytest.mark.parametrize(("text", "lines"), [("a\tb\nalone\nc\td\n", [2]), ("\n a\t \n", [2]), ("a\tb\tc", [1])])
def test_lines_that_are_no_pairs(tmp_path: Path, text: str, lines: list[int]) -> None:
    (tmp_path / "pairs.tsv").write_text(text)
    with pytest.raises(DataError, match="a line must be two sentences") as caught:
        distillation.unlabelled(tmp_path / "pairs.tsv", BINARY.model_copy(update={"sentences": 2}))
    assert [problem.place.line for problem in caught.value.problems if problem.place] == lines


# The whole path ------------------------------------------------------------------------------------------------

def test_a_student_that_heeds_labels_alone_is_the_model_without_a_teacher(made: Path) -> None:
    assert finished(made, "labels").read("model.safetensors") == finished(made, "sum").read("model.safetensors")
    assert finished(made, "student").read("model.safetensors") != finished(made, "sum").read("model.safetensors")


def test_a_student_costs_one_model(made: Path) -> None:
    manifest = finished(made, "student").manifest
    assert manifest["parameters"] == finished(made, "sum").manifest["parameters"]
    assert manifest["what"].startswith("student; ") and manifest["spec"]["teacher"]["spec"] in manifest["trees"]
    built(made, "tree", "student")
    results = made / "results" / "demo"
    student, tree = (json.loads((results / f"{name}.json").read_bytes())["tree"] for name in ("student", "tree"))
    assert "members" not in student and len(tree["members"]) == 2


@dataclass
class Stopping(Supervisor):
    """Stops at a step."""

    at: int = 5

    def tick(self) -> None:
        """Stop once so many steps are done."""
        super().tick()
        if self.attempt.progress().get("step", 0) >= self.at:
            self.signals.append(2)

    def report(self, state: object) -> None:
        """Tell of every step."""
        self._reported = 0.0
        super().report(state)  # type: ignore[arg-type]


def test_a_student_that_was_stopped_ends_with_the_same_bytes(root: Path) -> None:
    registry, wanted = Registry(root / "registry"), finished(root, "student")
    files = {name: wanted.read(name) for name in ("model.safetensors", "predictions.safetensors", "history.jsonl")}
    registry.drop(wanted.id)
    for file in registry.cache.glob("teaching-*"):
        file.unlink()
    job, _, _ = ordered(root, "student")
    attempt = Attempt(registry.attempt(job.id))
    attempt.begin(job.to_bytes(), job.replaces)
    assert run(Stopping(attempt)) == 130
    assert planned(root, "student").nodes[job.id].action == "resume"
    assert names(built(root, "student"), "trained") == ["student"]
    again = finished(root, "student")
    assert "resumed at step" in again.read("log.txt").decode()
    assert {name: again.read(name) for name in files} == files


def test_ids_follow_the_teacher_and_what_is_learned_from(root: Path) -> None:
    specs = ("student", "warm", "other", "more", "labels", "sum")
    ids = [planned(root, spec).roots[spec] for spec in specs]
    assert len(set(ids)) == len(specs)
    (root / "more.txt").write_text("another film\n")
    assert planned(root, "more").roots["more"] != ids[3] and planned(root, "student").roots["student"] == ids[0]
    (root / "specs" / "tree.toml").write_text(TREE.replace("paraphrase", "sentiment"))
    assert planned(root, "student").roots["student"] != ids[0]


def test_a_finished_student_needs_nothing_of_its_teacher(root: Path) -> None:
    shutil.rmtree(finished(root, "fast").folder)
    plan = planned(root, "student")
    assert not plan.todo() and {node.name: node.state for node in plan.nodes.values()} == {
        "sum": "reuse", "fast": "spare", "": "spare", "tree": "spare", "student": "reuse"}
    assert [node.name for node in planned(root, "student", "tree").todo()] == ["fast"]
    plan = planned(root, "warm")
    assert [node.name for node in plan.todo()] == ["fast", "warm"]
    fast, warm = plan.todo()
    assert fast.id in plan.awaited([fast, warm])[warm.id] and fast.id not in plan.awaited([fast, warm])


def test_a_stored_run_teaches_what_it_predicts(root: Path) -> None:
    (root / "specs" / "one.toml").write_text(
        'kind = "model"\nextends = "sum.toml"\n[train]\ntasks = ["sentiment"]\n'
        f'[teacher]\nspec = "run:{finished(root, "fast").id}"\n')
    assert len(planned(root, "one").todo()) == 1
    registry = Registry(root / "registry")
    registry.drop_weights(finished(root, "fast"))
    with pytest.raises(SpecError, match="has no weights"):
        planned(root, "one")


@pytest.mark.long
def test_a_build_that_was_killed_in_the_middle_of_a_student_goes_on(tmp_path: Path) -> None:
    """Real workers, two at a time; the build and its worker are killed, the next build goes on from the checkpoint."""
    root = project(tmp_path, **SPECS)
    settings = ("--set", "resources.checkpoint_seconds=0", "--set", "train.epochs=40")
    command = ("build", "specs/student.toml", "--json", "-j", "2", *settings)
    build, id = mtrun(root, *command), planned(root, "student", settings=settings[3:]).roots["student"]
    assert build.stdout
    for line in build.stdout:
        event = json.loads(line)
        if event["event"] == "progress" and event["id"] == id and event["step"] > 5:
            break
    build.kill()
    build.communicate()
    out, err = mtrun(root, *command).communicate(timeout=600)
    events = [json.loads(line) for line in out.splitlines()]
    (started,) = [event for event in events if event["event"] == "started"]
    assert started["id"] == id and started["resumed"], err
    other = project(tmp_path / "other", **SPECS)
    built(other, "student", settings=settings[3:])
    for name in ("model.safetensors", "predictions.safetensors", "epochs.safetensors"):
        assert finished(root, "student").read(name) == finished(other, "student").read(name)
