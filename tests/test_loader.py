"""Specs: what they mean, and what is said of broken ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from projects import project

from runner.errors import SpecError
from runner.loader import Loader
from runner.spec import Leaf, Node, Tree

FOUR = 'kind = "model"\nextends = "sum.toml"\n[train]\nbatch_size = 4\n'


def load(root: Path, name: str, *settings: str, profile: str = "demo") -> list[Node]:
    return Loader(root, profile, settings).load(root / "specs" / f"{name}.toml")


def leaf(root: Path, name: str, *settings: str) -> Leaf:
    (node,) = load(root, name, *settings)
    assert isinstance(node, Leaf)
    return node


def problems(root: Path, name: str, *settings: str) -> list[str]:
    """Return the problems as `file:line:column message`."""
    with pytest.raises(SpecError) as caught:
        load(root, name, *settings)
    return [f"{Path(p.place.file).name}:{p.place.line}:{p.place.column} {p.message}" if p.place else p.message
            for p in caught.value.problems]


def test_layers_from_the_weakest_to_the_strongest(tmp_path: Path) -> None:
    root = project(tmp_path, four=FOUR, two='kind = "model"\nextends = "four.toml"\n[train]\nepochs = 5\n')
    train = leaf(root, "two").model.train
    assert (train.batch_size, train.epochs) == (4, 5)
    assert leaf(root, "sum").model.train.batch_size == 8
    assert leaf(root, "two", "train.epochs=7", "train.batch_size=2").model.train.epochs == 7
    assert leaf(root, "sum").model.heads["paraphrase"].features == ("|u-v|", "u*v")


def test_another_type_replaces_the_table_below(tmp_path: Path) -> None:
    text = 'kind = "model"\nextends = "sum.toml"\n[heads.paraphrase]\ntype = "cosine"\nloss = "bce"\n'
    assert leaf(project(tmp_path, x=text), "x").model.heads["paraphrase"].type == "cosine"


def test_a_bare_name_is_a_part_without_options(tmp_path: Path) -> None:
    text = 'kind = "model"\nextends = "sum.toml"\ncombiner = "pcgrad"\n'
    assert leaf(project(tmp_path, x=text), "x").model.combiner.type == "pcgrad"


def test_settings_reach_the_suite_and_keep_strings(tmp_path: Path) -> None:
    root = project(tmp_path)
    assert leaf(root, "sum", "suite.train=50").model.suite.train == 50
    assert leaf(root, "sum", "resources.device=cuda:1").model.resources.device == "cuda:1"


def test_a_sweep_makes_one_named_leaf_a_point(tmp_path: Path) -> None:
    text = 'kind = "model"\nextends = "sum.toml"\n[sweep]\n"optimizer.lr_scale" = [1.0, 2.0]\ntrain.seed = [1, 2, 3]\n'
    nodes = load(project(tmp_path, x=text), "x")
    assert [n.name for n in nodes][:2] == ["x@lr_scale=1.0,seed=1", "x@lr_scale=1.0,seed=2"]
    assert len(nodes) == 6
    assert nodes[-1].model.optimizer.lr_scale == 2.0
    assert nodes[-1].model.train.seed == 3


def test_trees_share_what_they_name_twice(tmp_path: Path) -> None:
    tree = ('kind = "ensemble"\n[tree]\ntype = "average"\nmembers = ["sum.toml", "four.toml", '
            '{ type = "best", by = "sentiment", members = ["sum.toml", "four.toml"] }]\n')
    (node,) = load(project(tmp_path, four=FOUR, x=tree), "x")
    assert isinstance(node, Tree)
    first, second, inner = node.node.children()
    assert inner.node.children() == (first, second)
    assert inner.node.children()[0] is first


def test_profile_heads_of_tasks_that_the_suite_lacks_are_left_out(tmp_path: Path) -> None:
    suite = ('kind = "suite"\ntype = "files"\n[tasks.sentiment]\ntitle = "S"\nkind = "classification"\n'
             'columns = ["sentence"]\nlabel = "label"\ntrain = "a"\ndev = "b"\n')
    text = ('kind = "model"\nsuite = "one.toml"\ncombiner = "sum"\nschedule = "constant"\n'
            '[heads.sentiment]\ntype = "linear"\nloss = "cross_entropy"\n')
    assert list(leaf(project(tmp_path, one=suite, x=text), "x").model.heads) == ["sentiment"]


def test_all_problems_at_once_with_their_places(tmp_path: Path) -> None:
    text = ('kind = "model"\nextends = "sum.toml"\n\n[train]\nepocs = 3\nbatch_size = "8"\n\n[heads.similarity]\n'
            'type = "cosin"\nloss = "mse"\n\n[optimizer]\nlr = -1.0\n')
    assert sorted(problems(project(tmp_path, x=text), "x")) == [
        "x.toml:13:6 `lr` in `[optimizer]`: expected greater than 0, got `-1.0`",
        "x.toml:5:1 unknown key `epocs` in `[train]`",
        "x.toml:6:14 `batch_size` in `[train]`: expected a valid integer, got `8`",
        "x.toml:9:8 unknown type `cosin` in `[heads.similarity]`",
    ]


def test_a_problem_names_who_included_the_file_and_the_nearest_spelling(tmp_path: Path) -> None:
    root = project(tmp_path, x='kind = "model"\nextends = "sum.toml"\n[train]\nepocs = 3\n',
                   y='kind = "ensemble"\n[tree]\ntype = "average"\nmembers = ["x.toml"]\n')
    with pytest.raises(SpecError) as caught:
        load(root, "y")
    (problem,) = caught.value.problems
    assert any(note.startswith("used by ") and note.endswith("y.toml:4") for note in problem.notes)
    assert problem.hint == "did you mean `epochs`?"
    assert "[train]" in problem.message
    assert "    ^^^^^" not in problem.render()
    assert "\n4 | epocs = 3\n  | ^^^^^\n" in problem.render()


@pytest.mark.parametrize(("text", "found"), [
    ('kind = "modle"\n', "x.toml:1:8 a spec of kind `modle` cannot be built"),
    ('[train]\nepochs = 1\n', "x.toml:1:1 `kind` is missing"),
    ('kind = "ensemble"\n', "x.toml:1:1 `[tree]` is missing in an ensemble"),
    ('kind = "ensemble"\n[tree]\ntype = "average"\nmembers = ["gone.toml"]\n', "gone.toml:0:1 cannot read"),
    ('kind = "ensemble"\n[tree]\ntype = "average"\nmembers = [3]\n', "x.toml:4:12 expected the path of a spec"),
    ('kind = "ensemble"\ntre = 1\n[tree]\ntype = "average"\nmembers = ["sum.toml"]\n',
     "x.toml:2:1 unknown key `tre` in an ensemble"),
    ('kind = "ensemble"\n[tree]\ntype = "averge"\nmembers = ["sum.toml"]\n', "x.toml:3:8 unknown type `averge` in `[tree]`"),
    ('kind = "ensemble"\n[tree]\ntype = "average"\nmembers = ["../../x.toml"]\n',
     "x.toml:4:12 `../../x.toml` is outside the project's folder"),
    ('kind = "model"\nextends = "sum.toml"\n[heads.sentimant]\ntype = "linear"\nloss = "cross_entropy"\n',
     "x.toml:3:8 unknown task `sentimant`"),
    ('kind = "model"\nextends = "sum.toml"\n[heads.sentiment]\nloss = "bce"\n',
     "x.toml:4:8 loss `bce` is not defined for the classification `sentiment`"),
    ('kind = "model"\nextends = "sum.toml"\n[heads.paraphrase]\ntype = "linear"\nloss = "bce"\n',
     "x.toml:4:8 head `linear` takes 1 sentences, an example of `paraphrase` has 2"),
    ('kind = "model"\nextends = "sum.toml"\n[train]\ntasks = ["sentiment", "similarty"]\n',
     "x.toml:4:9 unknown task `similarty` in `train.tasks`"),
    ('kind = "model"\nextends = "sum.toml"\nname = "../x"\n', "x.toml:3:8 `../x` cannot be a name"),
    ('kind = "model"\nextends = "sum.toml"\n[sweep]\n"train.seed" = 3\n', "x.toml:4:16 `train.seed` in `[sweep]` must be a list"),
    ('kind = "model"\nextends = "sum.toml"\n[sweep]\ntrain.seed = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]\n'
     'train.epochs = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]\ntrain.batch_size = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]\n',
     "x.toml:3:1 a sweep has at most 1,000 points"),
    ('kind = "model"\nextends = "x.toml"\n', "x.toml:2:11 specs that need each other: x.toml -> x.toml"),
    ('kind = "model\n', "x.toml:1:"),
])
def test_broken_specs(tmp_path: Path, text: str, found: str) -> None:
    assert any(p.startswith(found) for p in problems(project(tmp_path, x=text), "x")), problems(tmp_path, "x")


def test_a_ring_of_ensembles_is_named_ring_by_ring(tmp_path: Path) -> None:
    ring = 'kind = "ensemble"\n[tree]\ntype = "average"\nmembers = ["{}.toml"]\n'
    root = project(tmp_path, a=ring.format("b"), b=ring.format("c"), c=ring.format("a"))
    assert problems(root, "a") == ["c.toml:4:12 specs that need each other: a.toml -> b.toml -> c.toml -> a.toml"]


def test_settings_are_checked_like_files(tmp_path: Path) -> None:
    root = project(tmp_path)
    assert problems(root, "sum", "train.epocs=3") == ["--set:1:7 unknown key `epocs` in `[train]`"]
    assert problems(root, "sum", "train.epochs=many") == ["--set:1:14 `epochs` in `[train]`: expected a valid integer, got `many`"]
    assert problems(root, "sum", "train.epochs") == ["--set takes key=value, got `train.epochs`"]


def test_an_unknown_profile_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load(project(tmp_path), "sum", profile="dmeo")
    (problem,) = caught.value.problems
    assert problem.hint == "did you mean `demo`?"
    assert problem.notes[0].endswith("has: demo")
