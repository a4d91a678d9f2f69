"""Sentence encoders. One file per encoder."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from ...old_names import warn_of_old_name
from ...part import Part
from ...tasks.data import Data

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from .bert.architectures import Sizes


@dataclass(frozen=True)
class Packed:
    """Sequences (sentences or joint pairs) concatenated without padding, grouped by task.

    `tokens` int64 [N]: all token ids; `lengths` int64 [S]: tokens of each sequence, on the CPU.
    `sections`: number of sequences of each of the batch's T tasks, in order (sums to S).
    `firsts` int64 [S], on the CPU: tokens of the first segment, [CLS] a [SEP], of a joint pair [CLS] a [SEP] b [SEP],
    and all tokens of a single sentence; None if there are no joint pairs.
    """

    tokens: torch.Tensor
    lengths: torch.Tensor
    sections: tuple[int, ...]
    firsts: torch.Tensor | None = None


class Encoder(Part):
    """Maps sentences to embeddings."""

    training_only: ClassVar[tuple[str, ...]] = ("dropout", "freeze", "frozen_layers")
    """Training-only fields, ignored when weights are compared for compatibility."""
    has_token_states: ClassVar[bool] = False
    """Whether its module has `hidden(packed: Packed) -> Tensor [N, width]`, the last hidden states of all tokens, and
    `mask: int`, the id of [MASK]."""

    carries_banks: ClassVar[bool] = True
    """Whether each parameter of its module may be replaced by a bank, the parameter with a leading task dimension, so
    that one backward pass gives the gradient of each task. Without, there is one backward pass a task."""
    has_word_table: ClassVar[bool] = True
    """Whether the table that its module calls `words` may be replaced by some of its rows, as regularizers and sparse
    gradients need; without, `words` may be missing."""

    takes_adapters: ClassVar[bool] = False
    """Whether its module is a `bert.model.Bert`, to which adapters are attached."""
    poolings: ClassVar[tuple[str, ...]] = ()
    """Poolings that a head may ask for in place of the encoder's field `pooling`; `build` then gets them as a third
    argument, and the module's `forward` that of each section as a second one."""

    passing: ClassVar[tuple[str, ...]] = ()
    """Name of `training_only` in mtrun 0.1; goes with the next version."""
    tells_tokens: ClassVar[bool] = False
    """Name of `has_token_states` in mtrun 0.1; goes with the next version."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Take over what a subclass sets by a name of mtrun 0.1, with a warning."""
        for old, new in (("passing", "training_only"), ("tells_tokens", "has_token_states")):
            if old in cls.__dict__:
                setattr(cls, new, cls.__dict__[old])
                warn_of_old_name(f"Encoder.{old}", f"Encoder.{new}")

    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Dropout on the embeddings that are input to the heads (`hidden_dropout_prob` in CS 224N)."""
    freeze: bool = False
    """Freeze the encoder and train the heads only."""
    frozen_layers: int = Field(default=0, ge=0, json_schema_extra={"later": True})
    """Freeze the embeddings and this number of layers, the lowest ones; 0 freezes nothing."""

    @property
    def is_pretrained(self) -> bool:
        """Whether the initial weights come from files."""
        return False

    @abstractmethod
    def inputs(self, project: Path) -> dict[str, str]:
        """Return the sha256 of each file that the result depends on, such as weights; does not import torch."""

    def sizes(self, project: Path) -> Sizes | None:
        """Return the sizes of a BERT-like encoder as far as they are known without a download; None for any other."""
        return None

    def check(self, project: Path) -> None:
        """Raise CheckpointError if the headers of the files show that they cannot be used; does not import torch."""

    @abstractmethod
    def tokenizer(self, data: Data, project: Path) -> Tokenizer:
        """Return the tokenizer: adds [CLS] and [SEP], truncates sentences and joint pairs, does not pad."""

    @abstractmethod
    def build(self, tokenizer: Tokenizer, project: Path) -> torch.nn.Module:
        """Build a module with `forward(packed: Packed) -> Tensor [S, width]`, on the CPU, in fp32.

        It has `width: int`; `depth(name: str) -> int`, the layers from the top of a parameter: 0 after the last layer
        (pooler), 1 in it; and with `has_word_table` `words: str`, the name of the embedding table that `Packed.tokens`
        indexes.

        Random weights are drawn from torch's global generator, which the caller has seeded.
        """
