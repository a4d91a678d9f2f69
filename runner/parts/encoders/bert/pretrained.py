"""Pretrained weights in a folder: verification, tensor names, and loading."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from ....errors import CheckpointError, Place, Problem
from ....files import reported, sha256
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

PREFIXES = ("module.", "_orig_mod.", "model.", *sorted({kind.prefix for kind in ARCHITECTURES.values()}))
"""Prefixes of tensor names by DataParallel, torch.compile and models with heads."""


def _normalized_name(name: str) -> str:
    """Normalize a tensor name of a file: without prefixes, `gamma` and `beta` as weight and bias."""
    while prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), ""):
        name = name.removeprefix(prefix)
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


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

    def config(self) -> dict[str, Any]:
        """Read config.json."""
        return self._json(CONFIG)

    def options(self) -> dict[str, Any]:
        """Read tokenizer_config.json; empty where there is none."""
        return self._json(OPTIONS) if (self.folder / OPTIONS).exists() else {}

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

    def tensor_names(self) -> list[str]:
        """Return the names of all tensors in safetensors files; none of a pickle."""
        first, *shards = self.weight_files()
        files = {} if first == PICKLED else self._headers(shards or [first])
        return [name for names in files.values() for name in names]

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
