"""Models that begin with the weights of others: which weights, in which order they are built, what is no such model."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from builds import built, names
from projects import project
from safetensors.torch import load
from torch import Tensor
from train_runs import Stop, digest

from runner.errors import RegistryError, SpecError, Stopped, TrainingError
from runner.plan.forecast import forecast
from runner.plan.plan import Plan, PlannedNode
from runner.plan.planner import make_plan
from runner.registry.registry import WEIGHTS, Registry, Run
from runner.specs.loader import Loader
from runner.specs.render import document
from runner.specs.spec import Leaf
from runner.training.evaluation import Evaluation
from runner.training.stored_model import StoredModel, initialize
from runner.training.tokens import Tokens
from runner.training.trainer import Trainer, TrainerCallback
from runner.worker.worker import trainer_of

STILL = "[optimizer]\nlr = 1e-12\n[train]\nepochs = 1\n"
NEXT = f'kind = "model"\nextends = "sum.toml"\nstart = "sum.toml"\n{STILL}'
SPECS = {
    "next": NEXT, "third": NEXT.replace('start = "sum', 'start = "next'),
    "changed": NEXT + '[heads.paraphrase]\nfeatures = ["u", "v"]\n[heads.sentiment]\nweight = 2.0\n',
    "taught": 'kind = "model"\nextends = "sum.toml"\nstart = "next.toml"\n[teacher]\nspec = "sum.toml"\n',
    "mixed": NEXT.replace("1e-12", "1e-3") + '[regularizer]\ntype = "mixout"\n',
    "hidden": NEXT.replace("1e-12", "1e-3") + '[regularizer]\ntype = "masked"\n',
    "soup": 'kind = "soup"\nmembers = ["next.toml", "third.toml", "hidden.toml"]\n',
    "all": 'kind = "ensemble"\n[tree]\ntype = "average"\nmembers = ["third.toml", "changed.toml", "taught.toml", '
           '"mixed.toml", "soup.toml"]\n',
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of which all is built."""
    root = project(tmp_path_factory.mktemp("starting"), **SPECS)
    events = built(root, "all")
    assert events[-1].values["failed"] == 0
    order = names(events, "trained")
    assert order.index("sum") < order.index("next") < min(order.index(name) for name in ("third", "taught", "soup"))
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def planned(root: Path, *specs: str, settings: Sequence[str] = ()) -> Plan:
    return make_plan(root, [root / "specs" / f"{spec}.toml" for spec in specs], "demo", settings)


def node(root: Path, name: str) -> PlannedNode:
    plan = planned(root, name)
    return plan.nodes[plan.roots[name]]


def finished(root: Path, name: str) -> Run:
    run = Registry(root / "registry").find(node(root, name).id)
    assert run
    return run


def weights(root: Path, name: str) -> dict[str, Tensor]:
    return load(finished(root, name).read(WEIGHTS))


def begun(root: Path, name: str) -> Trainer:
    """A trainer at its first step."""
    leaf = node(root, name).spec
    assert isinstance(leaf, Leaf)
    return trainer_of(leaf.model, leaf.model.suite.load(root), root, root / "cache")


def test_it_begins_where_the_other_ended(made: Path) -> None:
    before = weights(made, "sum")
    for name in ("next", "third", "mixed"):
        found = begun(made, name).network.state_dict()
        other = weights(made, "next") if name == "third" else before
        assert found.keys() == other.keys() and all(torch.equal(found[key], other[key]) for key in found)
    for key, value in weights(made, "third").items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=1e-6)
    assert any(not torch.equal(value, before[key]) for key, value in weights(made, "mixed").items())


def test_a_head_that_is_not_the_same_begins_anew(made: Path) -> None:
    before, found = weights(made, "sum"), begun(made, "changed").network.state_dict()
    assert found["heads.paraphrase.weight"].shape == before["heads.paraphrase.weight"].shape  # u, v as |u-v|, u*v
    anew = {key for key, value in found.items() if not torch.equal(value, before[key])}
    assert anew == {"heads.paraphrase.weight", "heads.paraphrase.bias"}


def test_mixout_falls_back_to_where_it_began(made: Path) -> None:
    run, before = begun(made, "mixed"), weights(made, "sum")
    assert all(torch.equal(value, before[f"encoder.{name}"]) for name, value in run.network.start.items())


def test_what_a_regularizer_learns_with_is_not_kept(made: Path) -> None:
    run, kept = begun(made, "hidden"), weights(made, "hidden")
    own = {f"regularizer.{name}" for name, _ in run.network.regularizer.named_parameters()}
    assert len(own) == 4 and own <= run.parameters.keys()
    assert run.network.state_dict().keys() - own == kept.keys() == weights(made, "soup").keys()
    counts = {finished(made, name).manifest["parameters"] for name in ("hidden", "next", "soup")}
    assert counts == {sum(tensor.numel() for tensor in kept.values())}
    data = run.model.suite.load(made)
    one = StoredModel.of(finished(made, "hidden"), data, made)
    assert not list(one.network.regularizer.parameters())
    said = Evaluation(data, Tokens.of(data.splits, one.tokenizer), tuple(run.model.heads), ("dev",))(one.network)
    for task, output in finished(made, "hidden").predictions().outputs["dev"].items():
        np.testing.assert_allclose(said.outputs["dev"][task].scores, output.scores, atol=1e-5)


def test_the_id_holds_that_of_the_start(made: Path) -> None:
    first, taught = node(made, "next"), node(made, "taught")
    assert first.spec.model.canonical()["start"] == node(made, "sum").id  # type: ignore[union-attr]
    assert "start" not in node(made, "sum").spec.model.canonical()  # type: ignore[union-attr]
    ids = {planned(made, "next", settings=[f"train.seed={seed}"]).roots[f"next@seed={seed}"] for seed in (1, 2)}
    assert len({*ids, first.id}) == 3
    assert taught.below == [("teacher", node(made, "sum").id), ("start", first.id)]
    assert finished(made, "taught").manifest["made_of"].keys() == {node(made, "sum").id, first.id}
    assert taught.what.startswith("student; started; ")


def test_a_finished_one_needs_nothing_any_more(root: Path) -> None:
    shutil.rmtree(root / "registry" / node(root, "sum").id)
    plan = planned(root, "next")
    assert [(n.name, n.state) for n in plan.nodes.values()] == [("sum", "spare"), ("next", "reuse")]
    assert plan.todo() == []


def test_the_time_it_takes_is_known_from_another_start(made: Path) -> None:
    plan = planned(made, "third", settings=["train.seed=5"])
    assert [leaf.name for leaf in plan.todo()] == [f"{name}@seed=5" for name in ("sum", "next", "third")]
    assert all(leaf.seconds for leaf in forecast(plan, 1).leaves.values())


def test_stopped_and_resumed_is_the_same_to_the_bit(root: Path) -> None:
    whole, checkpoint = begun(root, "mixed"), root / "checkpoint"
    bytes_ = whole.run(TrainerCallback(), root / "none").to_bytes()
    piece = begun(root, "mixed")
    with pytest.raises(Stopped):
        piece.run(Stop(4), checkpoint)
    again = begun(root, "mixed")
    again.restore(checkpoint)
    assert again.run(TrainerCallback(), checkpoint).to_bytes() == bytes_ and digest(again) == digest(whole)


def test_weights_that_are_gone_or_of_another_shape_are_told(root: Path) -> None:
    network, start = begun(root, "next").network, node(root, "sum").id
    other = trainer_of(*another(root, "encoder.intermediate=24"), root, root / "cache").network
    with pytest.raises(TrainingError, match=r"the weights of `sum` \(\w+\) are of another shape"):
        initialize(other, start, root)
    shutil.rmtree(root / "registry" / start)
    with pytest.raises(RegistryError, match="or its weights are gone; build again"):
        initialize(network, start, root)


def another(root: Path, setting: str):  # type: ignore[no-untyped-def]
    (leaf,) = Loader(root, "demo", [setting]).load(root / "specs" / "sum.toml")
    return leaf.model, leaf.model.suite.load(root)


def test_what_a_spec_means_names_the_start(made: Path) -> None:
    (leaf,) = Loader(made, "demo").load(made / "specs" / "taught.toml")
    shown = document(leaf, "taught")
    assert 'start = "next"' in shown and 'spec = "sum"' in shown


# Another suite ---------------------------------------------------------------------------------------------------

REVIEWS = '''
kind = "suite"
type = "files"
folder = "data"
[tasks.sentiment]
title = "Reviews"
kind = "classification"
columns = ["sentence"]
label = "sentiment"
train = "train.csv"
dev = "dev.csv"
'''


@pytest.fixture
def pretrained(original: Path, tmp_path: Path) -> Path:
    """A project whose encoder is pretrained; `far` begins with a model of reviews of two classes, `near` of demo's."""
    reviews = 'kind = "model"\nsuite = "suites/reviews.toml"\n[heads.sentiment]\ntype = "linear"\n' \
              'loss = "cross_entropy"\n[combiner]\ntype = "sum"\n[schedule]\ntype = "constant"\n'
    begins = 'kind = "model"\nextends = "sum.toml"\nstart = "{}.toml"\n' + STILL
    root = project(tmp_path, reviews=reviews, far=begins.format("reviews"), near=begins.format("sum"))
    profile = root / "specs" / "profiles" / "demo.toml"
    (root / "specs" / "suites" / "reviews.toml").write_text(REVIEWS)
    (root / "data").mkdir()
    for split, word in (("train", "a"), ("dev", "one")):
        (root / "data" / f"{split}.csv").write_text("id\tsentence\tsentiment\n" + "".join(
            f"{number}\t{word} {'good' if number % 2 else 'bad'} film\t{number % 2}\n" for number in range(16)))
    scratch = profile.read_text()
    sizes = 'init = "scratch"\nwidth = 16\nlayers = 1\nattention_heads = 2\nvocabulary = 200\n'
    profile.write_text(scratch.replace(sizes, f'init = "{original}"\nmax_length = 48\n'))
    (root / "specs" / "profiles" / "scratch.toml").write_text(scratch)
    return root


def test_a_pretrained_encoder_may_come_from_another_suite(pretrained: Path) -> None:
    assert built(pretrained, "far", "near")[-1].values["failed"] == 0
    reviews, found = weights(pretrained, "reviews"), begun(pretrained, "far").network.state_dict()
    same = {key for key, value in found.items() if key in reviews and torch.equal(value, reviews[key])}
    assert same == {key for key in found if key.startswith("encoder.")}
    near, before = begun(pretrained, "near").network.state_dict(), weights(pretrained, "sum")
    assert all(torch.equal(near[key], before[key]) for key in near)


def test_a_vocabulary_of_another_suite_is_refused(pretrained: Path) -> None:
    with pytest.raises(SpecError, match="`reviews` is of other data than `far`"):
        make_plan(pretrained, [pretrained / "specs" / "far.toml"], "scratch", ())
