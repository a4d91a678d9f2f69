"""Bundles: there and back again, what is damaged or hostile, and the libraries that read a leaf."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_files import files_of, packed, resigned
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from systems import mtrun
from tokenizers import Tokenizer

from runner.build.bundle import bundle, import_bundle
from runner.errors import DataError, MtrunError, UsageError
from runner.inference import huggingface
from runner.parts.encoders.bert import checkpoints
from runner.plan.planner import make_plan
from runner.registry.manifest import json_with_checksum
from runner.tasks.data import Examples
from runner.training.stored_model import StoredModel
from runner.training.tokens import Tokens


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a tree."""
    path = tmp_path_factory.mktemp("exported") / "deep.zip"
    assert mtrun(trained, "export", "specs/deep.toml", "-o", str(path)).code == 0
    return path


# There and back ------------------------------------------------------------------------------------------------------


def test_what_is_imported_gives_the_same_table_builds_nothing_and_predicts_the_same(
        trained: Path, exported: Path, tmp_path: Path) -> None:
    done = mtrun(tmp_path, "import", str(exported), "new")
    assert done.code == 0 and "2 runs and 6 specs are new" in done.out
    new = tmp_path / "new"
    assert mtrun(new, "table").out == mtrun(trained, "table").out != ""
    plan = mtrun(new, "plan", "specs/deep.toml", "--json")
    assert {json.loads(line).get("action") for line in plan.out.splitlines()} & {"train", "resume"} == set()
    built = mtrun(new, "build", "specs/deep.toml", "--executor", "inline", "--json")
    assert json.loads(built.out.splitlines()[-1])["trained"] == 0
    asked = ("predict", "specs/deep.toml", "A fine film.", "--pair", "a", "b", "--members", "--format", "json")
    assert mtrun(new, *asked).out == mtrun(trained, *asked).out
    again = mtrun(tmp_path, "import", str(exported), "new")
    assert again.code == 0 and "0 runs and 0 specs are new" in again.out
    assert mtrun(new, "verify").code == 0


def test_the_same_is_the_same_bytes_and_a_folder_is_a_zip(trained: Path, exported: Path, tmp_path: Path) -> None:
    for name in ("again.zip", "folder"):
        assert mtrun(trained, "export", "specs/deep.toml", "-o", str(tmp_path / name)).code == 0
    assert (tmp_path / "again.zip").read_bytes() == exported.read_bytes()
    folder = tmp_path / "folder"
    assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == \
        files_of(exported)
    assert mtrun(trained, "reproduce", str(folder)).out == mtrun(trained, "reproduce", str(exported)).out
    assert mtrun(tmp_path, "import", str(folder), "new").code == 0
    assert mtrun(trained, "export", "specs/deep.toml", "-o", str(folder)).code == 2, "nothing is overwritten"


def test_every_number_comes_out_of_the_predictions_again(trained: Path, exported: Path, tmp_path: Path) -> None:
    done = mtrun(tmp_path, "reproduce", str(exported))
    assert done.code == 0 and done.out.strip() == mtrun(trained, "table").out.strip()
    assert " 0 differ" in done.err and int(done.err.split()[0]) > 30


def test_a_number_that_does_not_follow_is_found(exported: Path, tmp_path: Path) -> None:
    files = files_of(exported)
    result = json.loads(files["results/demo/deep.json"])
    result["tree"]["scores"]["test"]["sentiment"] += 1e-6
    files["results/demo/deep.json"] = json.dumps(result).encode()
    done = mtrun(tmp_path, "reproduce", str(packed(tmp_path / "forged.zip", resigned(files))))
    assert done.code == 1 and " 1 differ" in done.err
    assert "results/demo/deep.json: tree.scores.test.sentiment is" in done.out


def test_a_bundle_needs_no_weights(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "bare")
    runs = [path.name for path in (tmp_path / "bare" / "registry").iterdir() if not path.name.startswith(".")]
    assert mtrun(tmp_path / "bare", "rm", "--weights", *runs).code == 0
    assert mtrun(tmp_path / "bare", "export", "specs/deep.toml", "-o", "../bare.zip").code == 0
    assert mtrun(tmp_path, "reproduce", "bare.zip").out.strip() == mtrun(trained, "table").out.strip()


def test_what_is_not_trained_cannot_be_exported(trained: Path) -> None:
    done = mtrun(trained, "export", "specs/deep.toml", "--set", "train.epochs=9")
    assert done.code == 2 and "2 of 2 runs are not trained yet" in done.err


def test_a_predictions_file_goes_with_it(trained: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(trained, root)
    lines = []
    for split in ("dev", "test"):
        for task, columns in (("sentiment", "first"), ("paraphrase", "first second"), ("similarity", "first second")):
            part = examples(root, task, split)
            rows = [{"id": id, **dict(zip(("sentence1", "sentence2"), texts, strict=False))} for id, *texts in
                    zip(part.ids, *(getattr(part, column) for column in columns.split()), strict=True)]
            asked = "".join(f"{json.dumps(row)}\n" for row in rows)
            said = mtrun(root, "predict", "specs/sum.toml", "--task", task, "--from", "jsonl", "--format", "csv",
                         "--split", split, text=asked)
            assert said.code == 0, said.err
            lines += said.out.splitlines()[1 if lines else 0:]
    (root / "specs" / "theirs.csv").write_text("\n".join(lines))
    (root / "specs" / "both.toml").write_text(
        'kind = "ensemble"\n[tree]\ntype = "average"\nmembers = ["pcgrad.toml", "theirs.csv"]\n')
    assert mtrun(root, "build", "specs/both.toml", "specs/mean.toml", "--executor", "inline").code == 0
    both, mean = (json.loads((root / "results" / "demo" / f"{name}.json").read_bytes()) for name in ("both", "mean"))
    for split in ("dev", "test"):  # the file says what the model says
        assert both["tree"]["scores"][split] == pytest.approx(mean["tree"]["scores"][split], abs=1e-5)
    assert mtrun(root, "export", "specs/both.toml", "-o", "../both.zip").code == 0
    assert " 0 differ" in mtrun(tmp_path, "reproduce", "both.zip").err
    assert mtrun(tmp_path, "import", "both.zip", "new").code == 0
    plan = mtrun(tmp_path / "new", "plan", "specs/both.toml")
    assert plan.code == 0 and "2 to reuse, 1 to score" in plan.out
    done = mtrun(root, "predict", "specs/both.toml", "A fine film.")
    assert done.code == 2 and "`theirs` is a predictions file" in done.err


def examples(root: Path, task: str, split: str) -> Examples:
    plan = make_plan(root, [root / "specs" / "sum.toml"], "demo")
    return next(plan.data[node.suite].splits[task][split] for node in plan.nodes.values())


# Damage and malice ---------------------------------------------------------------------------------------------------


def refused(path: Path, target: Path) -> str:
    """Return why a bundle is refused; check that the import left nothing behind."""
    with pytest.raises((DataError, UsageError)) as raised, bundle.opened(path) as held:
        import_bundle.import_into(held, target)
    assert not target.exists() or not list(target.rglob("*.toml"))
    assert not (target / "registry").exists() or not list((target / "registry").glob("[0-9a-f]*"))
    return raised.value.render()


def test_any_flipped_bit_is_found(exported: Path, tmp_path: Path) -> None:
    whole = exported.read_bytes()
    files = files_of(exported)
    for name, content in files.items():
        place = whole.index(content) + len(content) // 2
        damaged = bytearray(whole)
        damaged[place] ^= 4
        (tmp_path / "damaged.zip").write_bytes(damaged)
        assert "damaged" in (said := refused(tmp_path / "damaged.zip", tmp_path / "new")) or "not taken" in said
        folded = tmp_path / "folder"
        shutil.rmtree(folded, ignore_errors=True)
        for other, bytes_ in files.items():
            (folded / other).parent.mkdir(parents=True, exist_ok=True)
            (folded / other).write_bytes(bytes_)
        (folded / name).write_bytes(damaged[whole.index(content):][:len(content)])
        refused(folded, tmp_path / "new")


@pytest.mark.parametrize("cut", [0, 10, 1000, -10])
def test_a_cut_file_is_refused(exported: Path, tmp_path: Path, cut: int) -> None:
    (tmp_path / "cut.zip").write_bytes(exported.read_bytes()[:cut])
    refused(tmp_path / "cut.zip", tmp_path / "new")


@pytest.mark.parametrize("name", [
    "../escaped.toml", "/tmp/escaped.toml", "specs/../../escaped.toml", "specs/..\\escaped.toml", "C:escaped.toml",
    "specs//x.toml", "specs/.hidden.toml", "specs/x.toml/", "specs/" + "x/" * 20 + "x.toml", "specs/con\n.toml",
    "parts/heads/evil.py", "specs/evil.py", "registry/README.md", "results/demo/x/y.json",
])
def test_no_name_leads_out_or_elsewhere(exported: Path, tmp_path: Path, name: str) -> None:
    files = resigned({**files_of(exported), name: b"evil"})
    refused(packed(tmp_path / "evil.zip", files), tmp_path / "new")
    assert not list(tmp_path.rglob("*escaped*")) and not Path("/tmp/escaped.toml").exists()


@pytest.mark.parametrize("system", ["../../x", "a/b", "", "x\x00"])
def test_no_system_is_called_like_a_path(exported: Path, tmp_path: Path, system: str) -> None:
    def rename(record: dict) -> None:  # type: ignore[type-arg]
        record["systems"] = {system: record["systems"]["deep"]}

    evil = packed(tmp_path / "evil.zip", resigned(files_of(exported), rename))
    assert "cannot be the name of a file" in refused(evil, tmp_path / "new")


def test_links_compression_and_doubles_are_refused(exported: Path, tmp_path: Path) -> None:
    files = files_of(exported)
    with zipfile.ZipFile(tmp_path / "small.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    assert "compressed" in refused(tmp_path / "small.zip", tmp_path / "new")
    link = zipfile.ZipInfo("specs/link.toml")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(packed(tmp_path / "link.zip", files), "a") as archive:
        archive.writestr(link, "/etc/passwd")
    assert "links" in refused(tmp_path / "link.zip", tmp_path / "new")
    with pytest.warns(UserWarning), zipfile.ZipFile(packed(tmp_path / "double.zip", files), "a") as archive:
        archive.writestr("specs/sum.toml", b"another")
    assert "two files of one name" in refused(tmp_path / "double.zip", tmp_path / "new")
    folder = tmp_path / "folder"
    shutil.copytree(_unpacked(files, tmp_path / "plain"), folder)
    os.remove(folder / "specs" / "sum.toml")
    (folder / "specs" / "sum.toml").symlink_to("/etc/passwd")
    assert "neither a file nor a folder" in refused(folder, tmp_path / "new")


def _unpacked(files: dict[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_entries_that_overlap_are_refused(exported: Path, tmp_path: Path) -> None:
    data = bytearray(exported.read_bytes())
    start = data.rindex(b"PK\x01\x02")  # the last entry of the directory
    for offset in (20, 24):
        data[start + offset:start + offset + 4] = (1 << 30).to_bytes(4, "little")
    (tmp_path / "large.zip").write_bytes(data)
    assert "overlap" in refused(tmp_path / "large.zip", tmp_path / "new")


def test_an_entry_without_a_name_is_refused(exported: Path, tmp_path: Path) -> None:
    whole = bytearray(exported.read_bytes())
    whole[whole.index(b"PK\x01\x02") + 46] = 0  # a name ends at its first zero
    (tmp_path / "nameless.zip").write_bytes(whole)
    assert "without a name" in refused(tmp_path / "nameless.zip", tmp_path / "new")


@given(st.data())
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_changed_nothing_but_our_errors_comes(exported: Path, tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(exported.read_bytes())
    directory = whole.index(b"PK\x01\x02")
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(directory, len(whole) - 1) | st.integers(0, 200))
        whole[place] = data.draw(st.integers(0, 255))
    (tmp_path / "changed.zip").write_bytes(whole)
    with contextlib.suppress(DataError), bundle.opened(tmp_path / "changed.zip") as held:
        held.verify()
        assert {name: b"".join(held.chunks(name)) for name in held.record.files}.items() <= files_of(exported).items()


def test_a_run_under_another_id_is_refused(exported: Path, tmp_path: Path) -> None:
    files = files_of(exported)
    one, two = sorted({name.split("/")[1] for name in files if name.startswith("registry/")})
    swapped = {name.replace(one, "?").replace(two, one).replace("?", two) if name.startswith("registry/") else name: c
               for name, c in files.items()}
    evil = packed(tmp_path / "evil.zip", resigned(swapped))
    assert "is of another run" in refused(evil, tmp_path / "new")
    manifest = json.loads(files[f"registry/{one}/manifest.json"])
    del manifest["sha256"]
    manifest["spec"]["train"]["seed"] += 1
    files[f"registry/{one}/manifest.json"] = json_with_checksum(manifest)
    evil = packed(tmp_path / "evil.zip", resigned(files))
    assert f"the id {one} is not that of the run's spec" in refused(evil, tmp_path / "new")


def test_what_a_project_has_is_never_overwritten(exported: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "specs" / "sum.toml"
    mine.parent.mkdir(parents=True)
    mine.write_text("# mine\n")
    with pytest.raises(UsageError, match="other files of the same names"), bundle.opened(exported) as held:
        import_bundle.import_into(held, tmp_path / "mine")
    assert mine.read_text() == "# mine\n" and sorted(os.listdir(tmp_path / "mine")) == ["specs"]


# Other libraries -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def leaves(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundles of single leaves: one with BERT's pooler, one with the mean of all tokens."""
    folder = tmp_path_factory.mktemp("leaves")
    for name in ("sum", "pcgrad"):
        assert mtrun(trained, "export", f"specs/{name}.toml", "-o", str(folder / name)).code == 0
    return {name: folder / name for name in ("sum", "pcgrad")}


def leaf(root: Path, name: str) -> tuple[StoredModel, dict[str, np.ndarray]]:
    """Return a trained leaf and its stored dev scores by task."""
    plan = make_plan(root, [root / "specs" / f"{name}.toml"], "demo")
    (node,) = plan.nodes.values()
    run = plan.registry.find(node.id)
    assert run
    stored = {task: output.scores for task, output in run.predictions().outputs["dev"].items()}
    return StoredModel.of(run, plan.data[node.suite], root), stored


def test_transformers_says_what_the_evaluation_said(trained: Path, leaves: dict[str, Path]) -> None:
    transformers = pytest.importorskip("transformers")
    folder = leaves["sum"] / "transformers"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    sentences = list(examples(trained, "sentiment", "dev").first)
    with torch.no_grad():
        logits = model(**tokenizer(sentences, padding=True, return_tensors="pt")).logits.numpy()
    np.testing.assert_allclose(logits, leaf(trained, "sum")[1]["sentiment"], atol=1e-5, rtol=0)
    loaded = transformers.AutoModel.from_pretrained(folder, output_loading_info=True)[1]
    assert not loaded["missing_keys"] and not loaded["mismatched_keys"]


def test_an_encoder_without_pooler_gives_the_same_states(trained: Path, leaves: dict[str, Path]) -> None:
    transformers = pytest.importorskip("transformers")
    folder = leaves["pcgrad"] / "transformers"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    sentences = list(examples(trained, "paraphrase", "dev").first)
    one, _ = leaf(trained, "pcgrad")
    given = tokenizer(sentences, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**given).last_hidden_state
    mask = given["attention_mask"][:, :, None]
    means = ((states * mask).sum(1) / mask.sum(1)).numpy()
    tokens = Tokens.of({"x": {"dev": Examples(tuple(sentences), tuple(sentences))}}, one.tokenizer)
    rows = tokens.rows(sentences)
    with torch.no_grad():
        ours = one.network.embed(tokens.pack(rows, (len(rows),)), ("sentiment",)).numpy()
    np.testing.assert_allclose(means, ours, atol=1e-5, rtol=0)


def test_transformers_undoes_the_treebank_too(trained: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    one, _ = leaf(trained, "sum")
    data, encoder = one.model.suite.load(trained), one.model.encoder.model_copy(update={"treebank": True})
    again = replace(one, tokenizer=encoder.tokenizer(data, trained))
    for name, content in huggingface.transformers(again, trained).items():
        (tmp_path / name).write_bytes(content)
    text = "`` The film is n't bad '' -LRB- or \\/ and -RRB-"
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)(text)["input_ids"]
    assert theirs == again.tokenizer.encode(text).ids != one.tokenizer.encode(text).ids


def test_the_exported_encoder_is_a_checkpoint(trained: Path, leaves: dict[str, Path]) -> None:
    one, _ = leaf(trained, "sum")
    found = checkpoints.find(str(leaves["sum"] / "transformers"), trained)
    sizes = found.sizes()
    assert (sizes.width, sizes.layers, sizes.heads) == (16, 1, 2)
    mine = one.network.encoder.state_dict()
    weights = found.weights({name: tuple(tensor.shape) for name, tensor in mine.items()})
    assert all(torch.equal(weights[name], mine[name]) for name in mine)
    (file,) = (leaves["sum"] / "tokenizers").iterdir()
    text = "A fine film, isn't it? \N{SNOWMAN}"
    assert Tokenizer.from_file(str(file)).encode(text).ids == one.tokenizer.encode(text).ids
    assert found.vocabulary() == sorted(one.tokenizer.get_vocab(), key=one.tokenizer.get_vocab().get)  # type: ignore[arg-type]


def test_no_pickle_is_in_a_bundle(exported: Path) -> None:
    for name, content in files_of(exported).items():
        assert name.endswith((".json", ".jsonl", ".txt", ".toml", ".safetensors")), name
        assert not content.startswith(b"\x80") and not zipfile.is_zipfile(io.BytesIO(content))


def test_an_error_of_an_archive_is_ours(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("no archive")
    for path in (tmp_path / "text.zip", tmp_path, tmp_path / "none.zip"):
        with pytest.raises(MtrunError), bundle.opened(path):
            pass
