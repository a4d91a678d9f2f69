"""BERT-like architectures as data: how each differs from BERT in config.json, tensor names and embeddings.

BERT: Devlin et al. 2019, arXiv:1810.04805. RoBERTa: Liu et al. 2019, arXiv:1907.11692; XLM-RoBERTa: Conneau et al.
2020, arXiv:1911.02116; CamemBERT: Martin et al. 2020, arXiv:1911.03894. DistilBERT: Sanh et al. 2019, arXiv:1910.01108.
ELECTRA: Clark et al. 2020, arXiv:2003.10555. MPNet: Song et al. 2020, arXiv:2004.09297. Names and keys are those of
Hugging Face's transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

LARGEST, SHORTEST = 1 << 20, 3
"""Highest size that is accepted; tokens of the shortest sentence, [CLS] and [SEP] included."""

ACTIVATIONS = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
"""Values of `hidden_act` -> approximation of torch's GELU."""

Pooling = Literal["pooler", "cls", "last", "mean", "max", "attention"]
"""How the states of a sentence's tokens become its embedding."""

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Sizes:
    """All that determines an encoder but its weights, dropout and pooling."""

    width: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int
    positions: int
    """Rows of the position table."""
    segments: int = 1
    """Segment embeddings; 0 without a table."""
    eps: float = 1e-12
    """Constant of LayerNorm."""
    embedding: int = 0
    """Width of the embeddings if they are projected to `width`; 0 if they are not."""
    first_position: int = 0
    """Row of the position table for the first token."""
    relative_buckets: int = 0
    """Buckets of relative positions, each with a bias of the attention scores (MPNet); 0 without."""
    gelu: str = "none"
    """Approximation of torch's GELU."""
    architecture: str = "bert"
    """Name in `ARCHITECTURES`."""

    @property
    def longest(self) -> int:
        """Most tokens of a sentence."""
        return self.positions - self.first_position


_BLOCK = {
    "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
    "mix": "attention.output.dense", "mix_norm": "attention.output.LayerNorm",
    "expand": "intermediate.dense", "contract": "output.dense", "contract_norm": "output.LayerNorm",
}
_KEYS = {
    "width": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads", "vocabulary": "vocab_size",
    "intermediate": "intermediate_size", "positions": "max_position_embeddings", "segments": "type_vocab_size",
}


@dataclass(frozen=True)
class Architecture:
    """How one architecture differs from BERT."""

    prefix: str
    """Prefix of its tensor names in models with heads."""
    model: str
    """Its base class in transformers."""
    keys: Mapping[str, str] = field(default_factory=_KEYS.copy)
    """Fields of `Sizes` -> keys of config.json; a field that is not here has its default."""
    blocks: str = "encoder.layer"
    """Their name of our `blocks`."""
    block: Mapping[str, str] = field(default_factory=_BLOCK.copy)
    """Our module names within a block -> theirs."""
    activation: str = "hidden_act"
    """Key of config.json for the activation."""
    has_pooler: bool = True
    counts_padding: bool = False
    """Whether the first rows of the position table are for padding, up to that of its id."""
    defaults: Mapping[str, int] = field(default_factory=dict)
    """Keys of config.json that may be missing -> their values in transformers."""
    is_wordpiece: bool = False
    """Whether vocab.txt alone makes a tokenizer: BERT's."""

    def their_name(self, name: str) -> str:
        """Convert a tensor name of ours to theirs, without prefix."""
        *block, module, kind = name.split(".")
        return f"{self.blocks}.{block[1]}.{self.block[module]}.{kind}" if block else f"{_OUTER[module]}.{kind}"


_OUTER = {
    "word": "embeddings.word_embeddings", "position": "embeddings.position_embeddings",
    "segment": "embeddings.token_type_embeddings", "norm": "embeddings.LayerNorm", "pooler": "pooler.dense",
    "project": "embeddings_project", "relative_bias": "encoder.relative_attention_bias",
}

ARCHITECTURES: Mapping[str, Architecture] = {
    "bert": Architecture("bert.", "BertModel", is_wordpiece=True),
    "roberta": Architecture("roberta.", "RobertaModel", counts_padding=True),
    "xlm-roberta": Architecture("roberta.", "XLMRobertaModel", counts_padding=True),
    "camembert": Architecture("roberta.", "CamembertModel", counts_padding=True),
    "distilbert": Architecture(
        "distilbert.", "DistilBertModel", blocks="transformer.layer", activation="activation", has_pooler=False,
        is_wordpiece=True,
        keys={"width": "dim", "layers": "n_layers", "heads": "n_heads", "vocabulary": "vocab_size",
              "intermediate": "hidden_dim", "positions": "max_position_embeddings"},
        block={"query": "attention.q_lin", "key": "attention.k_lin", "value": "attention.v_lin",
               "mix": "attention.out_lin", "mix_norm": "sa_layer_norm", "expand": "ffn.lin1", "contract": "ffn.lin2",
               "contract_norm": "output_layer_norm"}),
    "electra": Architecture("electra.", "ElectraModel", has_pooler=False, is_wordpiece=True,
                            keys={**_KEYS, "embedding": "embedding_size"}, defaults={"embedding_size": 128}),
    "mpnet": Architecture(
        "mpnet.", "MPNetModel", counts_padding=True,
        keys={**{ours: theirs for ours, theirs in _KEYS.items() if ours != "segments"},
              "relative_buckets": "relative_attention_num_buckets"},
        defaults={"relative_attention_num_buckets": 32},
        block={**_BLOCK, "query": "attention.attn.q", "key": "attention.attn.k", "value": "attention.attn.v",
                        "mix": "attention.attn.o", "mix_norm": "attention.LayerNorm"}),
}


def sizes_of(config: Mapping[str, Any]) -> tuple[Sizes | None, list[str]]:
    """Read the sizes in the content of config.json; return None and what is wrong if it is not supported."""
    name = config.get("model_type", "bert")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        return None, [f"`model_type` is {name!r}; supported are {', '.join(ARCHITECTURES)}"]
    architecture = ARCHITECTURES[name]
    values = {ours: config.get(theirs, architecture.defaults.get(theirs)) for ours, theirs in architecture.keys.items()}
    padding, eps = config.get("pad_token_id", 1), config.get("layer_norm_eps", 1e-12)
    gelu = config.get(architecture.activation, "gelu")
    wrong = [*_unsupported(config, architecture), *_wrong_sizes(values, architecture)]
    if architecture.counts_padding and not _is_size(padding, least=0):
        wrong.append(f"`pad_token_id` is {padding!r}, not a whole number from 0 to {LARGEST:,}")
    if not isinstance(eps, float) or not 0 < eps < 1:
        wrong.append(f"`layer_norm_eps` is {eps!r}, not a number from 0 to 1")
    if wrong:
        return None, wrong
    if values.get("embedding") == values["width"]:
        del values["embedding"]
    sizes = Sizes(**{"segments": 0} | values, eps=eps, architecture=name, gelu=ACTIVATIONS[gelu],
                  first_position=padding + 1 if architecture.counts_padding else 0)
    if sizes.longest < SHORTEST:
        return None, [f"`max_position_embeddings` is {sizes.positions}, too few for a sentence"]
    return sizes, []


def _unsupported(config: Mapping[str, Any], architecture: Architecture) -> Iterator[str]:
    """Yield the settings in the content of config.json that are not implemented."""
    if (position := config.get("position_embedding_type", "absolute")) != "absolute":
        yield f"`position_embedding_type` is {position!r}, only 'absolute' is supported"
    if str(activation := config.get(architecture.activation, "gelu")) not in ACTIVATIONS:
        yield f"`{architecture.activation}` is {activation!r}; supported are {', '.join(ACTIVATIONS)}"


def _wrong_sizes(values: Mapping[str, Any], architecture: Architecture) -> Iterator[str]:
    """Yield what is wrong with the sizes in config.json."""
    wrong = {architecture.keys[name]: value for name, value in values.items() if not _is_size(value)}
    for key, value in wrong.items():
        yield f"`{key}` is {value!r}, not a whole number from 1 to {LARGEST:,}"
    if not wrong and values["width"] % values["heads"]:
        yield f"{values['heads']} attention heads do not divide {values['width']}"
    if not wrong and values.get("relative_buckets", 4) < 4:
        yield f"`{architecture.keys['relative_buckets']}` is {values['relative_buckets']}, less than 4"


def _is_size(value: object, least: int = 1) -> bool:
    return type(value) is int and least <= value <= LARGEST


def longest_of(config: Mapping[str, Any]) -> int | None:
    """Return the most tokens of a sentence by the content of config.json of any model, or None if it does not say."""
    sizes, _ = sizes_of(config)
    positions = sizes.longest if sizes else config.get("max_position_embeddings", config.get("n_positions"))
    return positions if _is_size(positions) else None


def config_of(sizes: Sizes) -> dict[str, Any]:
    """Return the keys of config.json for these sizes."""
    architecture = ARCHITECTURES[sizes.architecture]
    values = asdict(sizes) | {"embedding": sizes.embedding or sizes.width}
    config = {theirs: values[ours] for ours, theirs in architecture.keys.items()}
    activation = next(name for name, gelu in ACTIVATIONS.items() if gelu == sizes.gelu)
    paddings = {"pad_token_id": sizes.first_position - 1} if architecture.counts_padding else {}
    return {"model_type": sizes.architecture, architecture.activation: activation, "layer_norm_eps": sizes.eps,
            **paddings, **config}


def shapes_of(sizes: Sizes, pooling: str) -> dict[str, tuple[int, ...]]:
    """Return the shape of each parameter of an encoder by our names; the pooler is included only if it is used."""
    wide, inner, narrow = sizes.width, sizes.intermediate, sizes.embedding or sizes.width
    shapes: dict[str, tuple[int, ...]] = {
        "word.weight": (sizes.vocabulary, narrow), "position.weight": (sizes.positions, narrow),
        **({"segment.weight": (sizes.segments, narrow)} if sizes.segments else {}),
        "norm.weight": (narrow,), "norm.bias": (narrow,),
        **({"project.weight": (wide, narrow), "project.bias": (wide,)} if sizes.embedding else {}),
        **({"relative_bias.weight": (sizes.relative_buckets, sizes.heads)} if sizes.relative_buckets else {})}
    square = dict.fromkeys(("query", "key", "value", "mix"), (wide, wide))
    linear = {**square, "expand": (inner, wide), "contract": (wide, inner)}
    for layer in range(sizes.layers):
        for name, shape in linear.items():
            shapes |= {f"blocks.{layer}.{name}.weight": shape, f"blocks.{layer}.{name}.bias": shape[:1]}
        for name in ("mix_norm", "contract_norm"):
            shapes |= {f"blocks.{layer}.{name}.{kind}": (wide,) for kind in ("weight", "bias")}
    return shapes | ({"pooler.weight": (wide, wide), "pooler.bias": (wide,)} if pooling == "pooler" else {})
