"""Plans: what is reused, trained, resumed, stale; why, in the keys of a spec; time and disk from earlier runs."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from projects import project, write
from runs import finish, finished, leaf, planned

from runner.cli.app import main
from runner.cli.views.plan import json_lines, text
from runner.part import Part, plain_dump
from runner.parts.encoders.bert.architectures import Sizes
from runner.parts.encoders.bert.model import Bert
from runner.plan import encoder_cost
from runner.plan import forecast as forecasts
from runner.plan.forecast import LeafForecast, forecast
from runner.plan.plan import Plan
from runner.specs.spec import Leaf

MODEL = 'kind = "model"\nextends = "sum.toml"\n'
SPECS = {
    "mean": MODEL + 'combiner = "mean"\n',
    "rate": MODEL + '\n[optimizer]\nlr_scale = 2.0\n',
    "cosine": MODEL + '\n[heads.similarity]\ntype = "cosine"\nscale = 2.0\nloss = "bce"\n',
    "single": MODEL + '\n[train]\ntasks = ["sentiment"]\n',
    "seeds": MODEL + '\n[sweep]\n"train.seed" = [1, 2]\n',
    "pair": 'kind = "ensemble"\n[tree]\ntype = "average"\nmembers = ["sum.toml", "mean.toml"]\n',
    "tree": '''kind = "ensemble"
[tree]
type = "average"
members = ["pair.toml", "rate.toml", "cosine.toml", "single.toml", "seeds.toml",
           { type = "route", routes = { sentiment = "single.toml", paraphrase = "sum.toml" } }]
''',
}

SIZES = Sizes(width=8, layers=3, heads=2, intermediate=20, vocabulary=30, positions=12, segments=2)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project(tmp_path, **SPECS))
    return tmp_path


def masked(said: str) -> str:
    """Hide the ids, which change with the demo data and with every part's version."""
    return re.sub(r"\b[0-9a-f]{12}\b", "############", said)


def stop(plan: Plan, name: str, step: int, steps: int) -> None:
    """Leave an attempt as a stopped build does."""
    attempt = plan.registry.attempt(leaf(plan, name).id)
    attempt.mkdir(parents=True)
    (attempt / "checkpoint.safetensors").write_bytes(b"")
    (attempt / "progress.json").write_text(json.dumps({"step": step, "steps": steps}))


def every_state(root: Path) -> Plan:
    """Plan a tree of which one leaf is finished, one stale, one stopped, one damaged; the others are new."""
    plan = planned(root, "tree")
    finished(plan, leaf(plan, "sum"), {})
    finished(plan, leaf(plan, "mean"), {"source": {"combiners/mean.py": "old", "suites/demo.py": "older"}})
    stop(plan, "rate", 12, 16)
    run = finished(plan, leaf(plan, "seeds@seed=1"), {})
    (run.folder / "model.safetensors").unlink()
    return planned(root, "tree")


GOLDEN = '''\
tree                     score   ############
├─ pair                  score   ############
│  ├─ sum                reuse   ############
│  └─ mean               stale   ############  trained with older code of combiners/mean.py
├─ rate                  resume  ############  ~5 s      stopped at step 12 of 16
├─ cosine                train   ############  ~20 s
├─ single                train   ############
├─ seeds@seed=1          train   ############  ~20 s     damaged
├─ seeds@seed=2          train   ############  ~20 s
└─ route of 2            score   ############
   ├─ paraphrase: sum    as above
   └─ sentiment: single  as above

what differs from the nearest runs
  cosine, from sum ############
      heads.similarity.loss.type: "mse" -> "bce"  (specs/cosine.toml:7)
      heads.similarity.scale: 5.0 -> 2.0  (specs/cosine.toml:6)
  single, from sum ############
      train.tasks: unset -> ["sentiment"]  (specs/single.toml:5)
  seeds@seed=2, from seeds@seed=1 ############
      train.seed: 1 -> 2  (specs/seeds.toml:5)

1 to reuse, 1 to reuse though stale, 1 to resume, 4 to train, 3 to score
about 40 s with -j 2, 70.9 kB on disk; besides 1 of unknown time
by the size of the encoder: about 600.5 MB of memory a leaf'''


def test_the_text_of_a_plan(root: Path) -> None:
    plan = every_state(root)
    assert masked(text(plan, forecast(plan, jobs=2))) == GOLDEN
    assert max(map(len, GOLDEN.splitlines())) <= 100
    (note,) = plan.notes
    assert note.endswith("it will be set aside and trained again")


def test_json_says_all_of_it(root: Path) -> None:
    plan = every_state(root)
    *nodes, last = map(json.loads, json_lines(plan, forecast(plan, jobs=2)).splitlines())
    assert [node["id"] for node in nodes] == list(plan.nodes)
    by_name = {node["name"]: node for node in nodes}
    for node in nodes:
        ours = plan.nodes[node["id"]]
        assert (node["action"], node["members"], node["stale"]) == (ours.action, list(ours.members), list(ours.stale))
        assert all(member in plan.nodes for member in node["members"])
        assert (node["nearest"] is None) == (not node["differences"])
    assert by_name[""]["roles"] == ["paraphrase", "sentiment"]
    assert by_name["mean"]["stale"] == ["combiners/mean.py"]
    assert by_name["rate"]["progress"] == [12, 16]
    assert by_name["seeds@seed=2"]["differences"] == [{
        "key": "train.seed", "old": 1, "new": 2, "place": {"file": "specs/seeds.toml", "line": 5, "column": 20}}]
    assert by_name["cosine"]["nearest"] == {"id": by_name["sum"]["id"], "name": "sum"}
    assert by_name["single"]["seconds"] is None
    assert (last["event"], last["roots"]) == ("planned", {"tree": nodes[-1]["id"]})
    assert last["states"] == {"reuse": 1, "stale": 1, "resume": 1, "train": 4, "score": 3}
    assert (last["nodes"], last["train"], last["unknown"], last["seconds"], last["bytes"]) == (10, 5, 1, 40.0, 70880)


@pytest.mark.parametrize("arguments", [[], ["--json"], ["--graph", "mermaid"], ["--graph", "dot"], ["--graph", "text"]])
def test_a_plan_ends_with_exit_code_0_and_starts_nothing(root: Path, arguments: list[str],
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["plan", "specs/tree.toml", *arguments])
    assert ended.value.code == 0
    assert "rate" in capsys.readouterr().out
    assert sorted(os.listdir(root / "registry")) == [".cache"] or not (root / "registry").exists()


def test_nothing_is_read_where_nothing_is_trained(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(root, "sum")
    monkeypatch.setattr(forecasts, "latest", None)
    plan = planned(root, "sum")
    assert text(plan, forecast(plan, 1)).splitlines()[-1] == "1 to reuse"


def test_only_the_latest_runs_are_read_and_no_damaged_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [finish(root, "sum", [f"train.seed={seed}"]) for seed in range(1, 6)]
    for age, run in enumerate(runs):
        os.utime(run.folder, (10**9 - age, 10**9 - age))
    (runs[0].folder / "manifest.json").write_text("[]")
    monkeypatch.setattr(forecasts, "LATEST", 3)
    found, count = forecasts.latest(planned(root, "sum").registry)
    assert ([run.id for run in found], count) == ([runs[1].id, runs[2].id], 5)


# What differs ---------------------------------------------------------------------------------------------------------

CHANGES = {
    "train.epochs": [2, 3], "train.seed": [11711, 1], "train.steps": [None, 4], "train.tasks": [None, ["similarity"]],
    "optimizer.lr_scale": [1.0, 2.0], "encoder.dropout": [0.1, 0.2], "encoder.pooling": ["pooler", "mean"],
    "combiner.type": ["sum", "mean", "pcgrad"], "heads.sentiment.weight": [1.0, 0.5], "heads.similarity": [
        {"type": "cosine", "loss": "mse"}, {"type": "cosine", "loss": "cosine_embedding", "scale": 1.0},
        {"type": "pair", "loss": "mse"}],
}


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Every field of a part that is set and in the id, found by looking at its class."""
    if isinstance(value, Part):
        fields = {name: getattr(value, name) for name, field in type(value).model_fields.items() if not field.exclude
                  and not ((field.json_schema_extra or {}).get("later") and getattr(value, name) == field.default)}
        value = fields | ({"type": value.type} if value.type else {})
    if isinstance(value, dict):
        return {key: item for name, inner in value.items() for key, item in leaves(inner, f"{path}.{name}").items()}
    return {} if value is None else {path[1:]: list(value) if isinstance(value, tuple) else value}


def changed(draw: dict[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value).replace(':', '=')}" for key, value in draw.items() if value is not None]


draws = st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in CHANGES.items()})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(earlier=st.lists(draws, min_size=1, max_size=3), now=draws)
def test_every_field_that_differs_from_the_nearest_run_is_named_and_no_other(
        tmp_path_factory: pytest.TempPathFactory, earlier: list[dict[str, Any]], now: dict[str, Any]) -> None:
    root = project(tmp_path_factory.mktemp("plan"))
    seen = {}
    for draw in earlier:
        node = next(iter(planned(root, "sum", settings=changed(draw)).nodes.values()))
        if node.action == "train":
            finish(root, "sum", changed(draw))
        seen[node.id] = leaves(model(node))
    plan = planned(root, "sum", settings=changed(now))
    (node,) = plan.nodes.values()
    mine = leaves(model(node))
    away = {id: {key for key in mine.keys() | other.keys() if mine.get(key) != other.get(key)}
            for id, other in seen.items()}
    assert (node.action == "reuse") == (set() in away.values())
    for outlook in forecast(plan, 1).leaves.values():
        assert outlook.nearest
        assert len(away[outlook.nearest.id]) == min(map(len, away.values()))
        assert {one.key for one in outlook.differences} == away[outlook.nearest.id]
        for one in outlook.differences:
            assert (one.old, one.new) == (seen[outlook.nearest.id].get(one.key), mine.get(one.key))


def model(node: Any) -> Part:
    assert isinstance(node.spec, Leaf)
    return node.spec.model


def test_each_place_is_the_line_that_sets_the_value(root: Path) -> None:
    finish(root, "sum", ["train.epochs=9", "encoder.width=32", "optimizer.lr=1e-4", "encoder.hidden_dropout=0.5"])
    plan = planned(root, "cosine")
    (outlook,) = forecast(plan, 1).leaves.values()
    places = {one.key: one.place for one in outlook.differences}
    assert {key: place and place.file for key, place in places.items()} == {
        "encoder.hidden_dropout": None, "encoder.width": "specs/profiles/demo.toml",
        "optimizer.lr": "specs/profiles/demo.toml", "train.epochs": "specs/profiles/demo.toml",
        "heads.similarity.loss.type": "specs/cosine.toml", "heads.similarity.scale": "specs/cosine.toml"}
    for key, place in places.items():
        if place:
            line = (root / place.file).read_text().splitlines()[place.line - 1]
            assert line.startswith(key.removesuffix(".type").rpartition(".")[2])


def test_the_nearest_run_is_one_of_the_same_data(root: Path) -> None:
    finish(root, "sum", ["suite.seed=7"])
    far = finish(root, "sum", ["train.epochs=9", "train.seed=1", "optimizer.lr=1.0"])
    (outlook,) = forecast(planned(root, "sum"), 1).leaves.values()
    assert outlook.nearest and outlook.nearest.id == far.id


def test_changed_data_and_weights_are_named(root: Path) -> None:
    write(root, {"parts/encoders/read.py": READ, "specs/read.toml": MODEL + 'encoder = "read"\n', "weights.bin": "old"})
    finish(root, "read", ["suite.seed=7"])
    (root / "weights.bin").write_text("new")
    (outlook,) = forecast(planned(root, "read"), 1).leaves.values()
    assert [one.key for one in outlook.differences] == ["data", "suite.seed", "weights"]
    assert [masked(str(one)) for one in outlook.differences] == [
        "the data changed: ############ -> ############", "suite.seed: 7 -> 1",
        "the files that it reads changed: weights.bin"]


READ = '''
from runner.parts import Encoder
from runner.files import sha256

class Read(Encoder):
    """An encoder that reads a file."""
    type = "read"
    def inputs(self, project):
        return {"weights.bin": sha256(project / "weights.bin")}
    def tokenizer(self, data, project): ...
    def build(self, tokenizer, project): ...
'''


def test_code_of_a_part_of_ones_own_becomes_stale(root: Path) -> None:
    write(root, {"parts/encoders/read.py": READ, "specs/read.toml": MODEL + 'encoder = "read"\n', "weights.bin": ""})
    finish(root, "read")
    assert planned(root, "read").todo() == []
    (root / "parts" / "encoders" / "read.py").write_text(READ + "# changed\n")
    assert planned(root, "read").nodes.popitem()[1].state == "reuse", "a comment computes nothing"
    (root / "parts" / "encoders" / "read.py").write_text(READ + "CHANGED = True\n")
    (node,) = planned(root, "read").nodes.values()
    assert (node.action, node.state, node.reason) == ("reuse", "stale", "trained with older code of encoders/read.py")


# Time and disk --------------------------------------------------------------------------------------------------------


def seconds(root: Path, *settings: str) -> float | None:
    (outlook,) = forecast(planned(root, "sum", settings=settings), 1).leaves.values()
    return outlook.seconds


def test_time_is_in_proportion_to_epochs_and_unknown_for_another_load(root: Path) -> None:
    finish(root, "sum", seconds=20.0)
    assert seconds(root, "train.epochs=5") == 50.0
    assert seconds(root, "train.epochs=5", "train.seed=3", "encoder.dropout=0.2", "optimizer.lr=1.0") == 50.0
    for other in ("train.batch_size=4", "train.steps=3", "suite.seed=2", "resources.threads=2",
                  'train.tasks=["sentiment"]', 'resources.device="cuda"'):
        assert seconds(root, "train.epochs=5", other) is None
    finish(root, "sum", ["train.steps=4"], seconds=8.0)
    assert seconds(root, "train.steps=2", "train.epochs=4") == 8.0


def test_an_encoder_that_was_never_trained_is_estimated_from_its_size(root: Path) -> None:
    def ahead(*settings: str) -> LeafForecast:
        (of_leaf,) = forecast(planned(root, "sum", settings=settings), jobs=1).leaves.values()
        return of_leaf

    fresh = ahead("encoder.width=32", "encoder.layers=3")
    assert fresh.by_size and fresh.seconds is None
    finish(root, "sum", seconds=20.0)
    wide, twice = ahead("encoder.width=32", "encoder.layers=3"), ahead("encoder.layers=2", "train.epochs=5")
    products, elementwise = {16: 12 * 16**2, 32: 12 * 32**2}, encoder_cost.ELEMENTWISE
    share = 3 * (products[32] + elementwise * 32) / (products[16] + elementwise * 16)
    assert wide.by_size and wide.seconds == pytest.approx(20.0 * share)
    assert twice.seconds == pytest.approx(20.0 * 2 * 5 / 2)
    frozen = ahead("encoder.layers=2", "train.epochs=5", "adapter.type=lora")
    assert frozen.seconds == pytest.approx(twice.seconds * 2 / 3)
    assert wide.bytes and twice.bytes and wide.bytes > 2 * twice.bytes and wide.megabytes


@pytest.mark.parametrize("sizes", [SIZES, replace(SIZES, segments=0, relative_buckets=8), replace(SIZES, embedding=6)])
def test_its_weights_are_counted(sizes: Sizes) -> None:
    made = Bert(sizes, pooling="mean")
    assert encoder_cost.weights(sizes) == sum(parameter.numel() for parameter in made.parameters())


def test_a_run_from_before_a_field_was_added_tells_as_much(root: Path) -> None:
    plan = planned(root, "sum")
    (node,) = plan.nodes.values()
    spec = plain_dump(model(node))
    assert spec["encoder"].pop("treebank") is False
    finished(plan, node, {"spec": spec})
    assert seconds(root, "train.epochs=5") == 50.0
    assert seconds(root, "train.seed=2", "encoder.treebank=true") == 20.0  # by the size of the encoder, which is equal
    (outlook,) = forecast(planned(root, "sum", settings=["train.epochs=5"]), 1).leaves.values()
    assert [one.key for one in outlook.differences] == ["train.epochs"]


def test_a_gpu_is_known_without_torch(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "gpus", {"0/information": "Model: \t\t Small GPU\n", "1/information": "Model: \t\t Big GPU\n"})
    finish(root, "sum", seconds=20.0)
    finish(root, "sum", ["train.seed=2"], seconds=2.0,
           environment={"device": "Small GPU", "threads": 1})
    finish(root, "sum", ["train.seed=3"], seconds=1.0, environment={"device": "Big GPU", "threads": 1})
    assert seconds(root, "train.seed=4") == 20.0
    monkeypatch.setattr(forecasts, "GPUS", tmp_path / "gpus")
    assert [seconds(root, "train.seed=4", f'resources.device="{name}"')
            for name in ("auto", "cuda", "cuda:1", "cuda:2", "cpu")] == [2.0, 2.0, 1.0, None, 20.0]


def test_a_run_on_this_processor_tells_more_than_one_on_a_processor_unknown_or_another(
        root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecasts, "processor", lambda: "Some CPU")

    def on(name: str, seed: int, took: float) -> None:
        finish(root, "sum", [f"train.seed={seed}"], seconds=took, environment={
            "device": f"cpu ({name}, AVX2)", "processor": name, "instructions": "AVX2", "threads": 1})

    on("Another CPU", 2, 5.0)
    assert seconds(root, "train.seed=9") is None
    finish(root, "sum", seconds=20.0)
    assert seconds(root, "train.seed=9") == 20.0
    on("Some CPU", 3, 2.0)
    assert seconds(root, "train.seed=9") == 2.0


@pytest.mark.parametrize(("jobs", "expected"), [(1, 100), (2, 60), (3, 40), (9, 20)])
def test_the_time_of_all_is_that_of_a_queue(root: Path, jobs: int, expected: float) -> None:
    write(root, {"specs/five.toml": MODEL + '\n[sweep]\n"train.seed" = [1, 2, 3, 4, 5]\n'})
    finish(root, "sum", seconds=20.0)
    assert forecast(planned(root, "five"), jobs).seconds == expected
