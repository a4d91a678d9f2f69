"""What `mtrun check` prints: resolved specs are TOML that means the same, each value with the place that set it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import tomli
from projects import project

from runner.cli.app import main
from runner.specs.loader import Loader
from runner.specs.render import RULE, resolved, summary
from runner.specs.spec import Leaf

SPECS = Path(__file__).parents[2] / "specs"


def documents(root: Path, *names: str, settings: tuple[str, ...] = (), profile: str = "demo") -> dict[str, str]:
    """The printed documents by the names in their first lines."""
    loaded = Loader(root, profile, settings).load_all(root / "specs" / name for name in names)
    text = resolved(node for nodes in loaded for node in nodes)
    parts = re.split(rf"^{RULE} (.*)\n", text, flags=re.M)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shipped")
    shutil.copytree(SPECS, root / "specs")
    return root


FILES = [str(path.relative_to(SPECS)) for folder in ("", "models", "baseline", "best")
         for path in sorted((SPECS / folder).glob("*.toml"))]


@pytest.mark.parametrize("profile", ["demo", "paper"])
def test_a_resolved_model_is_whole_and_means_the_same(shipped: Path, profile: str) -> None:
    (shipped / "specs" / "profiles" / "bare.toml").touch()
    for file in FILES:
        for node in Loader(shipped, profile).load(shipped / "specs" / file):
            if isinstance(node, Leaf) and not node.model.needs:
                text = resolved([node])
                (shipped / "specs" / "again.toml").write_text(text)
                (again,) = Loader(shipped, "bare").load(shipped / "specs" / "again.toml")
                assert isinstance(again, Leaf) and again.model == node.model and again.name == node.name
                assert resolved([again]).count("# default") == 0


def test_every_value_says_where_it_was_set(shipped: Path) -> None:
    lines = [line for text in documents(shipped, *FILES).values() for line in text.splitlines()]
    values = [line for line in lines if "=" in line and not line.startswith("#") and not line.endswith("= [")]
    assert len(values) > 500
    for line in values:
        text, comment = line.rsplit("  # ", 1)
        key, _, value = (part.strip() for part in text.partition("="))
        if comment == "default" or key in ("kind", "name") or text.startswith("  "):
            continue
        file, number = comment.rsplit(":", 1)
        source = Path(file).read_text().splitlines()[int(number) - 1]
        if re.fullmatch(r"[\d.e+-]+", value):
            assert float(value) in map(float, re.findall(r"-?\d[\d.e+-]*", source)), (line, source)
            assert key in source, (line, source)
        else:
            assert value.strip('"') in source, (line, source)


def test_members_are_named_with_the_line_that_names_them(tmp_path: Path) -> None:
    rates = 'kind = "model"\nextends = "sum.toml"\n[sweep]\n"optimizer.lr_scale" = [1.0, 2.0]\n'
    tree = ('kind = "ensemble"\n[tree]\ntype = "route"\n[tree.routes]\nsimilarity = "sum.toml"\n'
            'sentiment = { type = "average", members = [\n  "sum.toml",\n  "rates.toml",\n'
            '  { type = "best", by = "sentiment", members = ["sum.toml"] },\n] }\n')
    root = project(tmp_path, rates=rates, x=tree)
    found = documents(root, "x.toml")
    places = {name: [line.rpartition(":")[2] for line in text.splitlines() if line.startswith(("  ", "s"))]
              for name, text in found.items() if "[tree]" in text}
    models = ["sum", "rates@lr_scale=1.0", "rates@lr_scale=2.0"]
    assert places == {"x": ["5", "6"], "x#1": ["7", "8", "8", "9"], "x#1#4": ["9"]}
    assert tomli.loads(found["x"])["tree"]["routes"] == {"similarity": "sum", "sentiment": "x#1"}
    assert tomli.loads(found["x#1"])["tree"]["members"] == [*models, "x#1#4"]
    assert [name for name in found if "[tree]" not in found[name]] == models


def test_settings_and_odd_texts(tmp_path: Path) -> None:
    root = project(tmp_path, x='kind = "model"\nextends = "sum.toml"\nsuite.name = "a \\" \\\\ \\t \u202e \\n"\n')
    (text,) = documents(root, "x.toml", settings=("train.epochs=3", "optimizer.lr=0.5")).values()
    assert tomli.loads(text)["suite"]["name"] == 'a " \\ \t \u202e \n' and "\u202e" not in text
    assert re.search(r"^epochs = 3 +# --set train.epochs=3$", text, re.M)
    assert re.search(r"^lr = 0.5 +# --set optimizer.lr=0.5$", text, re.M)


def test_a_line_for_each_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = 'kind = "ensemble"\n[tree]\ntype = "average"\nmembers = ["sum.toml", "same.toml", "x.toml"]\n'
    root = project(tmp_path, same='kind = "model"\nextends = "sum.toml"\ndescription = "the same"\n', y=tree,
                   x='kind = "model"\nextends = "sum.toml"\n[sweep]\ntrain.seed = [1, 2]\n')
    monkeypatch.chdir(root)
    names = ["specs/sum.toml", "specs/x.toml", "specs/y.toml"]
    assert summary(Loader(root).load_all(map(Path, names))).splitlines() == [
        "specs/sum.toml  ok: model", "specs/x.toml    ok: sweep of 2 models",
        "specs/y.toml    ok: ensemble of 3 models"]


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(project(tmp_path))
    for arguments, expected in ((["specs/sum.toml"], "specs/sum.toml  ok: model\n"),
                                (["--resolved", "specs/sum.toml"], f"{RULE} sum\nkind = ")):
        with pytest.raises(SystemExit) as stopped:
            main(["check", *arguments])
        assert stopped.value.code == 0
        assert capsys.readouterr().out.startswith(expected)


def test_what_a_leaf_is_made_of_is_named_and_shown(tmp_path: Path) -> None:
    rates = 'kind = "model"\nextends = "sum.toml"\n[sweep]\n"optimizer.lr_scale" = [1.0, 2.0]\n'
    student = ('kind = "model"\nextends = "sum.toml"\n[teacher]\nlabels = 0.25\n'
               'spec = { type = "average", members = ["soup.toml"] }\n')
    root = project(tmp_path, rates=rates, soup='kind = "soup"\nmembers = [\n  "rates.toml",\n]\n', student=student)
    found = documents(root, "student.toml")
    assert list(found) == ["student", "student#1", "soup", "rates@lr_scale=1.0", "rates@lr_scale=2.0"]
    soup = [line.split("  # ") for line in found["soup"].splitlines() if line.startswith("  ")]
    assert [(text.strip(), place.rpartition(":")[2]) for text, place in soup] == [
        ('"rates@lr_scale=1.0",', "3"), ('"rates@lr_scale=2.0",', "3")]
    assert tomli.loads(found["student"])["teacher"] == {
        "spec": "student#1", "labels": 0.25, "temperature": 2.0, "unlabelled": {}}
    assert summary(Loader(root).load_all([root / "specs" / "soup.toml"])).endswith("ok: uniform soup of 2")
