"""Specs: what they mean, and what is said of broken ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from projects import project

from runner.errors import SpecError
from runner.registry.registry import Registry, Run
from runner.specs.loader import Loader
from runner.specs.spec import Leaf, Node, Tree

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
    first, second, inner = node.ensemble.children()
    assert inner.ensemble.children() == (first, second)
    assert inner.ensemble.children()[0] is first


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
        "x.toml:13:6 `lr` in `[optimizer]` must be a number above 0, not -1.0",
        "x.toml:5:1 unknown key `epocs` in `[train]`",
        'x.toml:6:14 `batch_size` in `[train]` must be a whole number of at least 1, not the text "8"',
        "x.toml:9:8 unknown type `cosin` in `[heads.similarity]`",
    ]


def test_a_problem_names_who_included_the_file(tmp_path: Path) -> None:
    root = project(tmp_path, low='kind = "model"\nextends = "sum.toml"\n[train]\nepocs = 3\n',
                   x='kind = "model"\nextends = "low.toml"\n',
                   y='kind = "ensemble"\n[tree]\ntype = "average"\nmembers = ["x.toml"]\n')
    with pytest.raises(SpecError) as caught:
        load(root, "y")
    (problem,) = caught.value.problems
    assert problem.place and problem.place.file.endswith("low.toml")
    assert [note.rpartition("/")[2] for note in problem.notes[1:]] == ["x.toml:2", "y.toml:4"]


def test_rings_are_named_ring_by_ring(tmp_path: Path) -> None:
    ring = 'kind = "ensemble"\n[tree]\ntype = "average"\nmembers = [{}]\n'
    root = project(tmp_path, a=ring.format('"b.toml"'), b=ring.format('"c.toml", "b.toml"'), c=ring.format('"a.toml"'),
                   x='kind = "model"\nextends = "y.toml"\n', y='kind = "model"\nextends = "x.toml"\n')

    def rings(name: str) -> list[str]:
        return sorted(p.replace(f"{root}/specs/", "") for p in problems(root, name))

    assert rings("a") == ["b.toml:4:22 these files need each other: b.toml -> b.toml",
                          "c.toml:4:12 these files need each other: a.toml -> b.toml -> c.toml -> a.toml"]
    assert rings("x") == ["y.toml:2:11 these files need each other: x.toml -> y.toml -> x.toml"]


def test_settings_are_typed_and_checked_like_files(tmp_path: Path) -> None:
    root = project(tmp_path)
    settings = "train.steps=3", "encoder.freeze=true", 'train.tasks=["sentiment"]', "combiner=pcgrad"
    model = leaf(root, "sum", *settings).model
    assert (model.train.steps, model.encoder.freeze, model.train.tasks) == (3, True, ("sentiment",))
    assert model.combiner.type == "pcgrad"
    assert problems(root, "sum", "train.epocs=3") == ["the command line:0:13 unknown key `epocs` in `[train]`"]
    assert problems(root, "sum", "train.epochs=many", "train.seed=-1") == [
        'the command line:0:20 `epochs` in `[train]` must be a whole number of at least 1, not the text "many"',
        "the command line:0:18 `seed` in `[train]` must be a whole number from 0 to 4294967295, not -1"]
    assert problems(root, "sum", "train.epochs") == ["the command line:0:7 `--set` takes key=value on one line"]
    assert problems(root, "sum", "kind=model") == ["the command line:0:7 `kind` cannot be set from here"]


@pytest.mark.parametrize("order", [1, -1])
def test_settings_are_one_layer_in_any_order(tmp_path: Path, order: int) -> None:
    settings = ["heads.similarity.type=pair", "heads.similarity.loss=mse"][::order]
    assert leaf(project(tmp_path), "sum", *settings).model.heads["similarity"].type == "pair"


def test_the_layers_of_a_suite_are_those_of_the_file_that_names_it(tmp_path: Path) -> None:
    small = 'kind = "suite"\nextends = "suites/tiny.toml"\ntrain = 40\n'
    text = 'kind = "model"\nextends = "sum.toml"\nsuite = "small.toml"\n'
    root = project(tmp_path, small=small, x=text, y='kind = "model"\nextends = "x.toml"\nsuite.dev = 7\n')
    suite = leaf(root, "y", "suite.test=9").model.suite
    assert (suite.name, suite.train, suite.dev, suite.test) == ("small", 40, 7, 9)


def test_a_name_is_not_inherited(tmp_path: Path) -> None:
    root = project(tmp_path, x='kind = "model"\nname = "mine"\nextends = "sum.toml"\n', y='extends = "x.toml"\n')
    assert (leaf(root, "x").name, leaf(root, "y").name) == ("mine", "y")


def test_two_specs_of_one_name_are_refused(tmp_path: Path) -> None:
    root = project(tmp_path, x='name = "SUM"\nextends = "sum.toml"\n')
    paths = [root / "specs" / "sum.toml", root / "specs" / "x.toml"]
    with pytest.raises(SpecError, match="two specs are called `SUM`"):
        Loader(root).load_all(paths)
    assert [len(nodes) for nodes in Loader(root).load_all([paths[0], paths[0]])] == [1, 1]


def test_the_problems_of_several_specs_are_told_at_once(tmp_path: Path) -> None:
    root = project(tmp_path, x='kind = "modle"\n', y='kind = "ensmble"\n')
    with pytest.raises(SpecError) as caught:
        Loader(root).load_all(root / "specs" / name for name in ("x.toml", "gone.toml", "y.toml", "profiles"))
    assert len(caught.value.problems) == 4


def test_profile_heads_count_where_a_model_names_them_or_where_they_are_whole(tmp_path: Path) -> None:
    root = project(tmp_path, x='kind = "model"\ncombiner = "sum"\nschedule = "constant"\n[heads.sentiment]\n'
                   'type = "linear"\nloss = "cross_entropy"\n')
    assert list(leaf(root, "x").model.heads) == ["sentiment"]
    profile = root / "specs" / "profiles" / "demo.toml"
    profile.write_text(profile.read_text() + 'loss = "bce"\n')
    assert sorted(leaf(root, "x").model.heads) == ["paraphrase", "sentiment"]


def test_trees_of_any_depth(tmp_path: Path) -> None:
    inline = '"sum.toml"'
    for _ in range(14):
        inline = f'{{ type = "average", members = [{inline}] }}'
    specs = {"t0": f'kind = "ensemble"\n[tree]\ntype = "average"\nmembers = [{inline}]\n'}
    for number in range(1, 60):
        specs[f"t{number}"] = ('kind = "ensemble"\n[tree]\ntype = "average"\n'
                               f'members = ["t{number - 1}.toml", "t{number - 1}.toml"]\n')
    root = project(tmp_path, **specs)
    (node,) = load(root, "t34")
    assert isinstance(node, Tree)
    tasks = list(node.tasks or ())  # a node that failed to be told from another would be shown with all below it
    assert tasks == ["sentiment", "paraphrase", "similarity"]
    assert any("nodes over 50 deep inside one another" in problem for problem in problems(root, "t59"))


def test_long_chains_of_extends_are_refused(tmp_path: Path) -> None:
    specs = {f"c{number}": f'extends = "c{number - 1}.toml"\n' for number in range(1, 2000)}
    root = project(tmp_path, c0='extends = "sum.toml"\n', **specs)
    assert leaf(root, "c48").model.combiner.type == "sum"
    (problem,) = problems(root, "c1999")
    assert problem.endswith("over 50 files that extend one another")


def test_runs_as_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'kind = "ensemble"\n[tree]\ntype = "average"\nmembers = ["run:{}", "sum.toml"]\n'
    names = {"good": "0123456789ab", "typo": "0123456789ac", "short": "0123", "called": "sums", "near": "smus",
             "path": "../0123456789ab", "none": ""}
    root = project(tmp_path, **{name: text.format(run) for name, run in names.items()})
    there = Run("0123456789ab", tmp_path, {"name": "sums"})
    monkeypatch.setattr(Registry, "runs", lambda self: iter([there]))
    monkeypatch.setattr(Registry, "find", lambda self, id: there if id == there.id else None)
    (node,) = load(root, "good")
    assert isinstance(node, Tree) and node.ensemble.children()[0].id == "0123456789ab"

    def hint(name: str) -> str:
        with pytest.raises(SpecError, match="no finished run") as caught:
            load(root, name)
        return caught.value.problems[0].hint

    assert hint("typo") == "did you mean `0123456789ab`?"
    assert hint("short") == hint("called") == "did you mean `run:0123456789ab`, called `sums`?"
    assert hint("near") == "did you mean `sums`?"
    assert (hint("path"), hint("none")) == ("did you mean `0123456789ab`?", "")


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "x\u202ey", "é", "x" * 129, "", "x.", "nul\\u0000"])
def test_names_that_are_no_file_names_are_refused(tmp_path: Path, name: str) -> None:
    root = project(tmp_path, x=f'kind = "model"\nextends = "sum.toml"\nname = "{name}"\n')
    (problem,) = problems(root, "x")
    assert problem.startswith("x.toml:3:8 ")


def test_no_file_outside_the_project_is_read(tmp_path: Path) -> None:
    root = project(tmp_path / "project")
    secret = tmp_path / "secret.toml"
    secret.write_text('kind = "model"\nsecret = 1\n')
    (root / "specs" / "link.toml").symlink_to(secret)
    (root / "specs" / "loop.toml").symlink_to("loop.toml")
    for path in ("../../secret.toml", str(secret), "link.toml", "loop.toml", "suites/../../../secret.toml"):
        for text in (f'kind = "ensemble"\n[tree]\ntype = "average"\nmembers = ["{path}"]\n',
                     f'kind = "model"\nextends = "{path}"\n',
                     f'kind = "model"\nextends = "sum.toml"\nsuite = "{path}"\n'):
            (root / "specs" / "x.toml").write_text(text)
            found = problems(root, "x")
            assert all("outside the project" in p or "no file" in p for p in found) and found, found


def test_a_part_of_ones_own_that_cannot_be_imported_is_told_at_its_name(tmp_path: Path) -> None:
    heads = {"broken": "import nothing_of_this_name\n", "twice": "", "mine": '''
from runner.parts.heads.linear import Linear as Other
from runner.parts import Head

class Mine(Head):
    """A head."""
    type = "mine"
    build = Other.build
    scores = Other.scores
'''}
    text = 'extends = "sum.toml"\n[heads.sentiment]\ntype = "{}"\nloss = "cross_entropy"\n'
    root = project(tmp_path, **{name: text.format(name) for name in heads})
    (root / "parts" / "heads").mkdir(parents=True)
    for name, text in heads.items():
        (root / "parts" / "heads" / f"{name}.py").write_text(text)
    assert leaf(root, "mine").model.heads["sentiment"].type == "mine"
    for name, reason in (("broken", "ModuleNotFoundError: No module named 'nothing_of_this_name'"), ("twice", "")):
        (problem,) = problems(root, name)
        assert problem.startswith(f"{name}.toml:3:8 parts/heads/{name}.py cannot be used: {reason}")


def test_files_are_named_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project(tmp_path, x='extends = "sum.toml"\n[train]\nepocs = 1\n')
    for folder, shown in ((root, "specs/x.toml"), (root / "specs", "x.toml"), (root / "specs" / "suites", "../x.toml"),
                          (Path("/"), str(root / "specs" / "x.toml")[1:])):
        monkeypatch.chdir(folder)
        with pytest.raises(SpecError) as caught:
            Loader(root).load(root / "specs" / "x.toml")
        place = caught.value.problems[0].place
        assert place and place.file == shown
