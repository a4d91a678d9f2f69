"""minBERT: BERT encoder, randomly initialized, or a BERT-like pretrained one."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from pydantic import Field, model_validator

from ...errors import CheckpointError, Problem
from ...tasks.data import Data
from . import Encoder
from .bert import checkpoints
from .bert.architectures import Pooling, Sizes
from .bert.pretrained import PretrainedWeights

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SCRATCH = ("width", "layers", "attention_heads", "vocabulary")
"""Fields required by `init = "scratch"`."""


@cache
def _check(folder: Path, pooling: str, files: tuple[tuple[str, int, int], ...]) -> None:
    """Check a folder of weights, cached for all models of a sweep by `files`: names, modification times and sizes."""
    PretrainedWeights(folder, {}).check(pooling)


class MinBert(Encoder):
    """BERT's encoder (Devlin et al. 2019, arXiv:1810.04805) of any size, or one like it with pretrained weights."""

    type = "minbert"
    training_only = ("dropout", "freeze", "frozen_layers", "hidden_dropout")
    has_token_states = True
    takes_adapters = True
    poolings = get_args(Pooling)

    init: str = Field(min_length=1)
    """`scratch`; a named checkpoint, `minilm-l6`, `mpnet-base` or `bert-base-uncased`; a folder as transformers writes
    it; or a repository of the Hugging Face hub, such as `FacebookAI/roberta-base`, with `revision`. BERT, RoBERTa,
    XLM-RoBERTa, CamemBERT, DistilBERT, ELECTRA and MPNet, as config.json says."""
    revision: str | None = Field(default=None, pattern=f"^{checkpoints.REVISION}$", json_schema_extra={"later": True})
    """Hash of the commit, 40 hex digits; for a repository of the hub only."""
    pooling: Pooling = "pooler"
    """Sentence embedding: BERT's pooler on [CLS], the state of [CLS] or of the last token, the mean or maximum of all
    token states, or their mean with learned weights (`attention`: softmax of a linear score of each state)."""
    averaged_layers: int = Field(default=1, ge=1, le=96, json_schema_extra={"later": True})
    """Layers from the top whose states are averaged before pooling; 1 takes the last layer alone."""
    hidden_dropout: float = Field(default=0.1, ge=0, le=0.9)
    """Dropout inside the encoder: on the embeddings, the attention and after the linear layers."""
    max_length: int = Field(default=512, ge=3, le=4096)
    """Maximum number of tokens of a sentence, including [CLS] and [SEP]; longer ones are truncated."""
    treebank: bool = Field(default=False, json_schema_extra={"later": True})
    """Undo Penn Treebank tokenization (`do n't`, `-LRB-`) in texts such as those of SST."""
    width: int | None = Field(default=None, ge=1, le=8192)
    """Hidden size; from scratch only."""
    layers: int | None = Field(default=None, ge=1, le=96)
    """Number of layers; from scratch only."""
    attention_heads: int | None = Field(default=None, ge=1, le=128)
    """Attention heads per layer, a divisor of the width; from scratch only."""
    intermediate: int | None = Field(default=None, ge=1, le=32768)
    """Width of the feed-forward layer, by default 4 times the width; from scratch only."""
    vocabulary: int | None = Field(default=None, ge=16, le=1_000_000)
    """Maximum size of the vocabulary, which is built from the training sentences; from scratch only."""

    segments: int | None = Field(default=None, ge=1, le=2, json_schema_extra={"later": True})
    """Number of segment embeddings, by default 1; with 2, the sentences of a joint pair have different ones; from
    scratch only."""

    @model_validator(mode="after")
    def _sizes_are_given_once(self) -> MinBert:
        """Check that sizes are given if and only if the encoder is from scratch."""
        checkpoints.check_revision(self.init, self.revision)
        sizes = (*SCRATCH, "intermediate", "segments")
        given = {name: getattr(self, name) for name in sizes if getattr(self, name) is not None}
        if self.init != "scratch" and given:
            raise ValueError(f"{', '.join(given)} cannot be given: the sizes come with the weights `{self.init}`")
        if self.init == "scratch" and (missing := [name for name in SCRATCH if name not in given]):
            raise ValueError(f"an encoder from scratch needs {', '.join(missing)}")
        if self.layers and (wrong := self._too_many_layers(self.layers)):
            raise ValueError(wrong)
        if given and given["width"] % given["attention_heads"]:
            raise ValueError(f"{given['attention_heads']} attention heads do not divide the width {given['width']}")
        return self

    @property
    def is_pretrained(self) -> bool:
        """Whether the initial weights come from files."""
        return self.init != "scratch"

    def canonical(self) -> dict[str, Any]:
        """Return the content of the id; weights are identified by their hashes (`inputs`), not by their path."""
        fields = {key: value for key, value in super().canonical().items() if key != "revision"}
        return fields | ({} if self.init == "scratch" else {"init": "checkpoint"})

    def inputs(self, project: Path) -> dict[str, str]:
        """Return the sha256 of each file of the pretrained weights."""
        return {} if self.init == "scratch" else checkpoints.inputs(self.init, project, self.revision)

    def check(self, project: Path) -> None:
        """Raise CheckpointError if configuration, tokenizer, tensor shapes, `max_length` or layers do not fit.

        The files of a named checkpoint are pinned, and those of the hub may have to be downloaded first: they are not
        looked at, and of those of the hub nothing is known until then.
        """
        if self.init == "scratch":
            return
        if named := checkpoints.NAMED.get(self.init):
            self._check_sizes(named.sizes)
        elif checkpoints.is_here(self.init, self.revision):
            checkpoint = checkpoints.find(self.init, project, self.revision)
            self._check_sizes(checkpoint.sizes())
            stats = [(file, (checkpoint.folder / file).stat()) for file in checkpoint.files()
                     if (checkpoint.folder / file).exists()]
            _check(checkpoint.folder, self.pooling, tuple((name, s.st_mtime_ns, s.st_size) for name, s in stats))

    def sizes(self, project: Path) -> Sizes | None:
        """Return the sizes of the encoder, or None if its files have to be downloaded first."""
        if self.init == "scratch":
            return self._scratch(self.vocabulary or 0)
        if named := checkpoints.NAMED.get(self.init):
            return named.sizes
        is_here = checkpoints.is_here(self.init, self.revision)
        return checkpoints.find(self.init, project, self.revision).sizes() if is_here else None

    def _check_sizes(self, sizes: Sizes) -> None:
        """Raise CheckpointError if the encoder has too few positions or layers."""
        if self.max_length > sizes.longest:
            raise CheckpointError(Problem(f"`max_length` is {self.max_length}, but `{self.init}` has {sizes.longest} "
                                          "positions", hint=f"max_length = {sizes.longest}"))
        if wrong := self._too_many_layers(sizes.layers):
            raise CheckpointError(wrong)

    def _too_many_layers(self, layers: int) -> str:
        """Return what is wrong if layers are named that the encoder lacks; empty otherwise."""
        return next((f"`{name}` is {value}, but the encoder has {layers} layers" for name, value in (
            ("frozen_layers", self.frozen_layers), ("averaged_layers", self.averaged_layers)) if value > layers), "")

    def tokenizer(self, data: Data, project: Path) -> Tokenizer:
        """Return BERT's tokenizer with the pretrained vocabulary or one built from the training sentences."""
        from .bert import tokenizer as tokens  # slow import, which a plan does not need

        if self.init != "scratch":
            return checkpoints.find(self.init, project, self.revision).tokenizer(self.max_length, self.treebank)
        train = [splits["train"] for splits in data.splits.values()]
        sentences = (sentence for part in train for sentence in (*part.first, *part.second))
        assert self.vocabulary is not None
        pieces = tokens.vocabulary(sentences, self.vocabulary, self.treebank)
        return tokens.bert(pieces, self.max_length, treebank=self.treebank)

    def build(self, tokenizer: Tokenizer, project: Path, poolings: tuple[str, ...] = ()) -> torch.nn.Module:
        """Build the encoder, a `bert.model.Bert`; raise CheckpointError if the weights do not fit it."""
        from .bert.model import Bert
        from .bert.tokenizer import special_token

        pieces = tokenizer.get_vocab_size()
        make = partial(Bert, dropout=self.hidden_dropout, pooling=self.pooling, averaged=self.averaged_layers,
                       poolings=poolings, mask=tokenizer.token_to_id(special_token(tokenizer, "mask")))
        if self.init == "scratch":
            return make(self._scratch(pieces))
        checkpoint = checkpoints.find(self.init, project, self.revision)
        sizes = checkpoint.sizes()
        self._check_sizes(sizes)
        if pieces > sizes.vocabulary:
            raise CheckpointError(f"`{self.init}` has embeddings for {sizes.vocabulary} word pieces, not for {pieces}")
        with torch.device("meta"):
            bert = make(sizes)
        shapes = {name: tuple(tensor.shape) for name, tensor in bert.named_parameters()
                  if name not in bert.new_parameters}
        weights = checkpoint.weights(shapes, sizes.architecture)
        zeros = {name: torch.zeros_like(bert.get_parameter(name), device="cpu") for name in bert.new_parameters}
        bert.load_state_dict(weights | zeros, assign=True)
        return bert

    def _scratch(self, pieces: int) -> Sizes:
        """Return the sizes of an encoder from scratch with a vocabulary of `pieces`."""
        assert self.width and self.layers and self.attention_heads
        return Sizes(self.width, self.layers, self.attention_heads, self.intermediate or 4 * self.width, pieces,
                     positions=self.max_length, segments=self.segments or 1)
