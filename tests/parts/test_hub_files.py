"""Files of the Hugging Face hub by their names, with a stand-in for its client: the hub itself is not asked."""

from __future__ import annotations

import fnmatch
import sys
from pathlib import Path
from types import ModuleType

import pytest

from runner.errors import DataError
from runner.parts.suites import _hub
from runner.parts.suites._hub import HubName
from runner.parts.suites.files import Files, Source
from runner.tasks.data import Data

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SOURCE = Source(title="M", kind="binary", columns=("text",), label="label", train="hf://datasets/own/moods/train-*.csv",
                dev="hf://datasets/own/moods/sub/dev.csv")
FILES = {"train-0.csv": "text,label\na,1\n", "train-1.csv": "text,label\nb,0\n", "sub/dev.csv": "text,label\nc,1\n",
         "sub/train-2.csv": "text,label\nd,1\n"}


class Hub:
    """Stand-in for `huggingface_hub`: a repository, a cache laid out as the client does, and a count of requests."""

    def __init__(self, cache: Path) -> None:
        self.cache, self.requests, self.error = cache, list[tuple[str | None, str]](), None

    def snapshot_download(self, repository: str, *, repo_type: str, revision: str | None,
                          allow_patterns: list[str]) -> str:
        assert repo_type == "dataset"
        self.requests.append((revision, allow_patterns[0]))
        if self.error:
            raise self.error
        folder = self.cache / f"datasets--{repository.replace('/', '--')}"
        for file, text in FILES.items():
            if any(fnmatch.fnmatch(file, pattern) for pattern in allow_patterns):
                path = folder / "snapshots" / COMMIT / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        ref = folder / "refs" / (revision or "main")
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(COMMIT)
        return str(folder / "snapshots" / COMMIT)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub, client = Hub(tmp_path / "cache"), ModuleType("huggingface_hub")
    client.snapshot_download = hub.snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    monkeypatch.setenv("HF_HUB_CACHE", str(hub.cache))
    _hub._downloaded.cache_clear()
    return hub


def load(folder: Path, source: Source = SOURCE) -> Data:
    return Files(tasks={"x": source}, folder=str(folder)).load(folder)


def test_files_and_patterns_of_the_hub_are_read(tmp_path: Path, hub: Hub) -> None:
    splits = load(tmp_path).splits["x"]
    assert splits["train"].first == ("a", "b") and splits["dev"].first == ("c",)
    inputs = Files(tasks={"x": SOURCE}).inputs(tmp_path)
    assert inputs is not None and list(inputs) == [f"hf://datasets/own/moods/{name}" for name in
                                                   ("sub/dev.csv", "train-0.csv", "train-1.csv")]
    assert sorted(hub.requests) == [(None, "sub/dev.csv"), (None, "train-*.csv")]  # each once a process


def test_a_file_in_the_cache_is_not_asked_for(tmp_path: Path, hub: Hub) -> None:
    for name in ("train-0.csv", "sub/dev.csv"):
        hub.snapshot_download("own/moods", repo_type="dataset", revision=None, allow_patterns=[name])
    hub.requests.clear()
    for at in ("", f"@{COMMIT}"):
        source = SOURCE.model_copy(update={"train": f"hf://datasets/own/moods{at}/train-0.csv"})
        assert load(tmp_path, source).splits["x"]["train"].first == ("a",)
    assert not hub.requests


@pytest.mark.parametrize(("written", "asked"), [
    ("v1.0", "v1.0"), (COMMIT, COMMIT), ("~parquet", "refs/convert/parquet"), ("refs/pr/3", "refs/pr/3"),
    ("refs/convert/parquet", "refs/convert/parquet")])
def test_revisions(tmp_path: Path, hub: Hub, written: str, asked: str) -> None:
    load(tmp_path, SOURCE.model_copy(update={"train": f"hf://datasets/own/moods@{written}/train-*.csv"}))
    assert (asked, "train-*.csv") in hub.requests


@pytest.mark.parametrize(("kinds", "message", "hint"), [
    (["GatedRepoError", "RepositoryNotFoundError"], "is open only to those who asked for it", "hf auth login"),
    (["RepositoryNotFoundError"], "the hub has no data set own/moods, or it is private", "hf auth login"),
    (["RevisionNotFoundError"], "the data set own/moods of the hub has no revision v1", "its revisions"),
    (["LocalEntryNotFoundError"], "not on this machine, and the hub gave none: LocalEntryNotFoundError",
     "where there is a network")])
def test_what_the_hub_refuses_is_told(tmp_path: Path, hub: Hub, kinds: list[str], message: str, hint: str) -> None:
    kind: type[Exception] = Exception
    for name in reversed(kinds):
        kind = type(name, (kind,), {})
    hub.error = kind("reason\nand more")
    (tmp_path / "own.csv").write_text("text,label\nc,1\n")
    with pytest.raises(DataError) as caught:
        load(tmp_path, SOURCE.model_copy(update={"train": "hf://datasets/own/moods@v1/train.csv", "dev": "own.csv"}))
    problem = caught.value.problems[0]
    assert message in problem.message and hint in problem.hint


def test_a_file_that_the_data_set_lacks_is_told(tmp_path: Path, hub: Hub) -> None:
    with pytest.raises(DataError, match=r"hf://datasets/own/moods has no file tests\.csv"):
        load(tmp_path, SOURCE.model_copy(update={"train": "hf://datasets/own/moods/tests.csv"}))
    assert Files(tasks={"x": SOURCE.model_copy(update={"dev": "hf://datasets/a/b/c"})}).inputs(tmp_path) is None


def test_without_the_package_it_says_what_to_install(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert caught.value.problems[0].hint == "pip install 'mtrun[data]'"


def test_the_real_client_without_a_network_reads_its_cache(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
                                                           ) -> None:
    """The cache that the stand-in lays out is one that the client knows, where it is installed."""
    load(tmp_path)
    monkeypatch.delitem(sys.modules, "huggingface_hub")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub.cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    _hub._downloaded.cache_clear()
    assert load(tmp_path).splits["x"]["train"].first == ("a", "b")
    with pytest.raises(DataError, match="is not on this machine, and the hub gave none: LocalEntryNotFoundError"):
        load(tmp_path, SOURCE.model_copy(update={"train": "hf://datasets/own/others/*.csv"}))


@pytest.mark.parametrize("name", ["hf://datasets/squad/x", "hf://own/moods/a/b", "hf://datasets/own/moods", "hf://",
                                  "hf://datasets/own/moods@v1", "hf://datasets/own/moods/", "hf://spaces/own/a/b"])
def test_names_of_another_form_are_refused(name: str) -> None:
    assert HubName.parsed(name) is None
    with pytest.raises(ValueError, match=r"`dev` names `hf://.*a file of the hub is called hf://datasets/OWNER/NAME"):
        Source.model_validate(SOURCE.model_dump() | {"dev": name})
