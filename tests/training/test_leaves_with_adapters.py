"""Leaves with adapters, and heads with a pooling of their own: training, storage, resume, export, soups and starts."""

from __future__ import annotations

import json
import zipfile
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from projects import write
from safetensors.torch import load_file
from systems import mtrun
from tiny_models import encoded, save
from train_runs import digest, resumed, trainer, whole
from transformers import AutoModel, AutoTokenizer

from runner.errors import SpecError
from runner.parts.combiners.pcgrad import PCGrad
from runner.parts.encoders import Packed
from runner.plan import encoder_cost
from runner.registry.registry import WEIGHTS
from runner.specs.loader import Loader

ADAPTERS = {
    "lora": "rank = 2\ntargets = ['query', 'output']", "lora each": "rank = 2\nper_task = true", "dora": "rank = 2",
    "dora each": "rank = 2\nper_task = true", "houlsby": "size = 4", "houlsby each": "size = 4\nper_task = true",
    "pals": "size = 8", "private_layers": "layers = 2",
}
FROZEN = {name for name in ADAPTERS if name.partition(" ")[0] in ("lora", "dora", "houlsby")}
MERGED = {name for name in ADAPTERS if "houlsby" not in name and name != "pals"}


def with_adapter(folder: Path, adapter: str, architecture: str = "mpnet", **fields: str) -> Path:
    """Make a project with pretrained weights whose models have an adapter."""
    save(folder / "weights", architecture)
    root = encoded(folder, "minbert", **{"pooling": '"mean"', "hidden_dropout": "0.1", **fields})
    if adapter:
        with (root / "specs" / "profiles" / "demo.toml").open("a") as profile:
            profile.write(f'\n[adapter]\ntype = "{adapter.partition(" ")[0]}"\n{ADAPTERS[adapter]}\n')
    return root


def write_models(root: Path, **texts: str) -> None:
    """Write models that extend specs/sum.toml, with these lines besides."""
    write(root / "specs", {f"{name}.toml": f'kind = "model"\nextends = "sum.toml"\n{text}'
                           for name, text in texts.items()})


def write_soup(root: Path, name: str, *members: str) -> None:
    (root / "specs" / f"{name}.toml").write_text(f'kind = "soup"\nmembers = {json.dumps(members)}\n')


def stored(root: Path, name: str = "sum") -> dict[str, torch.Tensor]:
    """Return the stored tensors of the run of a name."""
    for manifest in (root / "registry").glob("*/manifest.json"):
        if json.loads(manifest.read_text())["name"] == name:
            return load_file(manifest.parent / WEIGHTS)
    raise AssertionError(name)


def build(root: Path, *specs: str, sets: tuple[str, ...] = ()) -> None:
    arguments = [word for setting in sets for word in ("--set", setting)]
    done = mtrun(root, "build", *(f"specs/{spec}.toml" for spec in specs), "--executor", "inline", "-q", *arguments)
    assert done.code == 0, done.err


@pytest.mark.parametrize("name", ADAPTERS)
def test_stopped_and_resumed_is_the_same_to_the_bit(tmp_path: Path, name: str) -> None:
    root = with_adapter(tmp_path, name)
    settings = (f"combiner={'sum' if 'each' in name else 'pcgrad'}", "train.steps=3", "optimizer.layer_decay=0.9")
    wanted, predictions, ticks = whole(root, *settings)
    run, again = resumed(root, [ticks // 3, ticks // 3], *settings)
    assert digest(run) == digest(wanted) and again == predictions


@pytest.mark.parametrize("name", ["lora", "dora each", "houlsby", "pals", "private_layers"])
def test_a_run_stores_what_it_trained_and_predicts_from_it(tmp_path: Path, name: str) -> None:
    root = with_adapter(tmp_path, name)
    build(root, "sum")
    names = stored(root)
    whole_encoder = AutoModel.from_pretrained(tmp_path / "weights").state_dict()
    added = {key for key in names if key.startswith("encoder.")}
    if name in FROZEN:
        assert added and all("adapter" in key for key in added)
    else:
        assert len(added) >= len(whole_encoder) - 2  # the mean leaves out weight and bias of the pooler
    bundle = root / "bundle.zip"
    done = mtrun(root, "export", "specs/sum.toml", "-o", str(bundle))
    assert done.code == 0
    assert mtrun(root, "reproduce", str(bundle)).code == 0
    assert ("without a folder for transformers" in done.err) == (name not in MERGED)
    assert mtrun(root, "predict", "specs/sum.toml", "the cat", "--task", "sentiment", "--format", "json").code == 0


@pytest.mark.parametrize("name", ["lora", "dora each", "private_layers"])
def test_merged_on_export_transformers_has_the_same_embeddings(tmp_path: Path, name: str) -> None:
    root = with_adapter(tmp_path, name, hidden_dropout="0.0")
    build(root, "sum")
    assert mtrun(root, "export", "specs/sum.toml", "-o", str(root / "bundle.zip")).code == 0
    with zipfile.ZipFile(root / "bundle.zip") as bundle:
        bundle.extractall(root / "bundle")
    each = "each" in name or name == "private_layers"
    (inner,) = {path.parent for path in (root / "bundle").rglob("transformers")}
    run = trainer(root)
    run.network.load_trained(stored(root))
    run.network.eval()
    for task in sorted(run.network.heads):
        folder = inner / "transformers" / task if each else inner / "transformers"
        model, spelling = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
        texts = ["the cat", "a good film ! the", "on and on"]
        inputs = spelling(texts, padding=True, return_tensors="pt")
        states, mask = model(**inputs).last_hidden_state, inputs["attention_mask"][..., None]
        expected = (states * mask).sum(1) / mask.sum(1)
        ids = [spelling(text)["input_ids"] for text in texts]
        packed = Packed(torch.tensor([*chain(*ids)]), torch.tensor([len(one) for one in ids]), (len(ids),))
        assert torch.allclose(run.network.embed(packed, (task,)), expected, atol=1e-5), task


def test_others_files_of_the_encoder_are_told(tmp_path: Path) -> None:
    root = with_adapter(tmp_path, "lora")
    build(root, "sum")
    save(tmp_path / "weights", "mpnet", hidden_act="gelu_new")
    done = mtrun(root, "predict", "specs/sum.toml", "the cat", "--task", "sentiment")
    assert done.code != 0 and "Traceback" not in done.err
    (run,) = [path.name for path in (root / "registry").iterdir() if (path / "manifest.json").exists()]
    (root / "specs" / "stored.toml").write_text(
        f'kind = "ensemble"\n[tree]\ntype = "average"\nmembers = ["run:{run}"]\n')
    done = mtrun(root, "predict", "specs/stored.toml", "the cat", "--task", "sentiment")
    assert done.code != 0 and "whose files are others now" in done.err


def test_soups_students_and_starts_take_what_fits(tmp_path: Path) -> None:
    root = with_adapter(tmp_path, "houlsby")
    write_models(root, other="[train]\nseed = 5\n", pupil='[teacher]\nspec = "sum.toml"\n',
                 later='start = "other.toml"\n')
    write_soup(root, "mean", "sum.toml", "other.toml")
    build(root, "mean", "pupil", "later")
    mean, first, second = stored(root, "mean"), stored(root), stored(root, "other")
    assert first.keys() < mean.keys() and all("adapter" in name for name in first if name.startswith("encoder."))
    for name, tensor in ((name, mean[name]) for name in first):
        assert torch.allclose(tensor, ((first[name].double() + second[name].double()) / 2).float())
    assert any("blocks.0.query.weight" in name for name in stored(root, "later"))


def refused(root: Path, spec: str, *settings: str) -> str:
    with pytest.raises(SpecError) as caught:
        Loader(root, "demo", settings).load(root / "specs" / f"{spec}.toml")
    return str(caught.value)


def test_what_does_not_fit_is_told_before_anything_starts(tmp_path: Path) -> None:
    root = with_adapter(tmp_path, "lora")
    write_soup(root, "mean", "sum.toml")
    write_models(root, later='start = "sum.toml"\n[adapter]\ntype = "houlsby"\n')
    done = mtrun(root, "plan", "specs/mean.toml")
    assert done.code == 2 and "the mean of products of matrices is not the product of their means" in done.err
    done = mtrun(root, "plan", "specs/later.toml")
    assert done.code == 2 and "`sum` has a `lora` adapter, and `later` another or none" in done.err
    assert "`rank` is 40, more than the width 32" in refused(root, "sum", "adapter.rank=40")
    pals = refused(root, "sum", "adapter.type=pals", "adapter.size=10")
    assert "`size` is 10, no multiple of the encoder's 4 attention heads" in pals
    frozen = refused(root, "sum", "adapter.type=private_layers", "adapter.layers=2", "encoder.frozen_layers=2")
    assert "of the encoder's 3 layers the lowest 2 are frozen" in frozen
    assert "`layers` is 4, but the encoder has 3" in refused(root, "sum", "adapter.type=private_layers",
                                                             "adapter.layers=4")
    hf = encoded(tmp_path / "hf", "hf")
    (tmp_path / "hf" / "weights").symlink_to(tmp_path / "weights")
    assert "the encoder `hf` takes no adapter" in refused(hf, "sum", "adapter.type=lora")


def test_a_start_gives_each_task_its_own_parameters_and_a_soup_fills_in_the_encoder(tmp_path: Path) -> None:
    root = with_adapter(tmp_path, "houlsby each")
    write_models(root, two='[train]\ntasks = ["paraphrase", "sentiment"]\nsteps = 4\n',
                 again='start = "two.toml"\n[train]\ntasks = ["sentiment"]\n'
                       '[optimizer]\ntype = "adamw"\nlr = 1e-2\nweight_decay = 0.5\n')
    (root / "specs" / "one.toml").write_text(
        'kind = "model"\nstart = "two.toml"\n[heads.sentiment]\ntype = "linear"\nloss = "cross_entropy"\n'
        '[combiner]\ntype = "sum"\n[schedule]\ntype = "constant"\n[optimizer]\nlr = 1e-12\n')
    write_soup(root, "mean", "two.toml", "again.toml")
    build(root, "one", "mean")
    two, one, again = stored(root, "two"), stored(root, "one"), stored(root, "again")
    names = [name for name in two if "adapter" in name]
    numbers = {task: number for number, task in enumerate(("paraphrase", "sentiment", "similarity"))}
    for name in names:
        assert torch.allclose(one[name][0], two[name][numbers["sentiment"]], atol=1e-6), name
        for task in ("paraphrase", "similarity"):  # not trained: no weight decay either
            assert torch.equal(again[name][numbers[task]], two[name][numbers[task]])
        mean = (two[name].double() + again[name].double()) / 2
        assert torch.allclose(stored(root, "mean")[name], mean.float())
    assert any(not torch.equal(again[name][1], two[name][1]) for name in names)


def test_files_that_changed_or_differ_are_told_before_a_soup_or_a_start(tmp_path: Path) -> None:
    root = with_adapter(tmp_path, "houlsby")
    build(root, "sum")
    save(tmp_path / "others", "mpnet", hidden_act="gelu_new")
    write_models(root, far=f'[encoder]\ninit = "{tmp_path / "others"}"\n')
    write_soup(root, "mean", "sum.toml", "far.toml")
    done = mtrun(root, "plan", "specs/mean.toml")
    assert done.code == 2 and "`its files` is" in done.err
    (run,) = [path.name for path in (root / "registry").iterdir() if (path / "manifest.json").exists()]
    write_models(root, later=f'start = "run:{run}"\n')
    write_soup(root, "alone", f"run:{run}")
    (tmp_path / "weights" / "tokenizer_config.json").unlink()  # a file that is gone changes the tokens, too
    for spec in ("later", "alone"):
        done = mtrun(root, "plan", f"specs/{spec}.toml")
        assert done.code == 2 and "whose files are others now" in done.err, spec


def test_poolings_with_parameters_may_differ_from_those_of_a_start(tmp_path: Path) -> None:
    save(tmp_path / "weights", "bert")
    root = encoded(tmp_path, "minbert", pooling='"mean"')
    write_models(root, first='[heads.sentiment]\npooling = "attention"\n',
                 then='start = "first.toml"\n[heads.sentiment]\npooling = "pooler"\n',
                 same='start = "sum.toml"\n[heads.sentiment]\npooling = "mean"\n[optimizer]\nlr = 1e-12\n')
    build(root, "then", "same")
    assert "encoder.pooler.weight" in stored(root, "then") and "encoder.attention.weight" in stored(root, "first")
    for name, tensor in stored(root, "sum").items():
        assert torch.allclose(stored(root, "same")[name], tensor, atol=1e-6), name


def test_a_pooling_that_the_encoder_lacks_is_told_at_the_head_alone_that_asks_for_it(tmp_path: Path) -> None:
    save(tmp_path / "weights", "distilbert")
    root = encoded(tmp_path, "minbert")  # by default the pooler, which DistilBERT lacks
    poolings = [f"heads.{task}.pooling=mean" for task in ("paraphrase", "similarity", "sentiment")]
    trainer(root, *poolings)
    with pytest.raises(SpecError) as caught:
        trainer(root, *poolings[:2], "heads.sentiment.pooling=pooler")
    (problem,) = caught.value.problems
    assert "has no pooler" in problem.message and problem.hint == 'heads.sentiment.pooling = "mean"'


@pytest.mark.parametrize("adapter", ["lora", "dora each", "houlsby", "pals", "private_layers"])
def test_the_weights_that_a_forecast_counts_are_there(tmp_path: Path, adapter: str) -> None:
    root = with_adapter(tmp_path, adapter)
    run = trainer(root)
    model = run.network.model
    sizes = model.encoder.sizes(root)
    assert model.adapter and sizes
    heads = sum(parameter.numel() for parameter in run.network.heads.parameters())
    assert run.network.size - heads == encoder_cost.weights(sizes) + model.adapter.weights(sizes, len(model.heads))


def test_the_classifier_of_an_export_is_that_of_its_folder(tmp_path: Path) -> None:
    root = with_adapter(tmp_path, "private_layers", "bert", pooling='"pooler"')
    build(root, "sum")
    assert mtrun(root, "export", "specs/sum.toml", "-o", str(root / "bundle")).code == 0
    kinds = {task: json.loads((root / "bundle" / "transformers" / task / "config.json").read_text())["architectures"]
             for task in ("paraphrase", "sentiment", "similarity")}
    assert kinds == {"paraphrase": ["BertModel"], "sentiment": ["BertForSequenceClassification"],
                     "similarity": ["BertModel"]}


# Heads with a pooling of their own -----------------------------------------------------------------------------------


POOLINGS = ("heads.sentiment.pooling=max", "heads.similarity.pooling=attention")


@pytest.mark.parametrize("encoder", ["minbert", "hf"])
def test_heads_get_the_pooling_that_they_ask_for(tmp_path: Path, encoder: str) -> None:
    save(tmp_path / "weights", "bert")
    root = encoded(tmp_path, encoder, pooling='"cls"', hidden_dropout="0.0")
    run = trainer(root, *POOLINGS, "encoder.dropout=0.0", "combiner=pcgrad")
    tasks, batch = run.tasks, run.batches.batch(0)
    for name, parameter in run.network.named_parameters():
        if "attention.weight" in name and parameter.shape[0] == 1:
            torch.nn.init.normal_(parameter)
    mixed = run.network.embed(batch.packed, tasks).split_with_sizes(batch.packed.sections)
    wanted = dict(zip(tasks, ("cls" if task == "paraphrase" else "max" if task == "sentiment" else "attention"
                              for task in tasks), strict=True))
    for task, embeddings in zip(tasks, mixed, strict=True):
        same: Any = run.network.encoder(batch.packed, (wanted[task],) * len(tasks))
        expected = same.split_with_sizes(batch.packed.sections)[tasks.index(task)]
        assert torch.allclose(embeddings, expected, atol=1e-6), task
    losses = run.network.backward(batch, PCGrad(), np.random.default_rng(1))
    gram = run.network.gram
    assert gram is not None
    for number in range(len(tasks)):  # each row of the Gram matrix is the gradient of that task alone
        run.network.clear()
        run.network.write_back()
        run.network.losses(batch)[number].backward()
        norms = [p.grad.square().sum() for p in run.network.encoder.parameters() if p.grad is not None]
        assert torch.stack(norms).sum().item() == pytest.approx(gram[number, number], rel=1e-3), tasks[number]
    assert torch.isfinite(losses).all()


def test_a_head_with_the_encoders_pooling_changes_nothing_and_another_resumes(tmp_path: Path) -> None:
    save(tmp_path / "weights", "bert")
    root = encoded(tmp_path, "minbert", pooling='"mean"', hidden_dropout="0.1")
    plain, same = (whole(root, "train.steps=2", *more) for more in ((), ("heads.sentiment.pooling=mean",)))
    assert plain[1] == same[1]
    wanted, predictions, ticks = whole(root, "train.steps=3", *POOLINGS)
    run, again = resumed(root, [ticks // 3, ticks // 3], "train.steps=3", *POOLINGS)
    assert digest(run) == digest(wanted) and again == predictions
    build(root, "sum", sets=("train.steps=2", *POOLINGS))
