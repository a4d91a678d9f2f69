"""Encoders: from sentences to embeddings. One file, one encoder."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from ...part import Part
from ...tasks.data import Data

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class Packed:
    """Sentences laid end to end without padding, those of one task next to each other.

    `tokens` int64 [N]: all token ids; `lengths` int64 [S]: tokens of each sentence, on the CPU.
    `sections`: how many of the S sentences belong to each of the batch's T tasks, in order (sums to S).
    `firsts` int64 [S], on the CPU: where some of the S are two sentences read as one, [CLS] a [SEP] b [SEP], how many
    tokens belong to the first segment, [CLS] a [SEP], and of a sentence alone all of them; None where all are alone.
    """

    tokens: torch.Tensor
    lengths: torch.Tensor
    sections: tuple[int, ...]
    firsts: torch.Tensor | None = None


class Encoder(Part):
    """Turns sentences into embeddings."""

    passing: ClassVar[tuple[str, ...]] = ("dropout", "freeze")
    """Fields that count while the encoder is trained, and mean nothing to the weights that come out."""
    tells_tokens: ClassVar[bool] = False
    """Whether its module has `hidden(packed: Packed) -> Tensor [N, width]`, the states of all tokens, and `mask: int`,
    the row of the word table that stands for a hidden word."""

    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Dropout on the embedding that the heads read (the course's `hidden_dropout_prob`)."""
    freeze: bool = False
    """Train the heads only, as the baseline's "last layer only"."""

    @abstractmethod
    def inputs(self, project: Path) -> dict[str, str]:
        """Return the sha256 of each file that the result depends on, such as weights; does not import torch."""

    def check(self, project: Path) -> None:
        """Raise CheckpointError where the files cannot be used, as far as their headers tell; does not import torch."""

    @abstractmethod
    def tokenizer(self, data: Data, project: Path) -> Tokenizer:
        """Return the tokenizer: [CLS] and [SEP] added, no padding, truncation set; pairs are cut to the same length."""

    @abstractmethod
    def build(self, tokenizer: Tokenizer, project: Path) -> torch.nn.Module:
        """Return a module with `forward(packed: Packed) -> Tensor [S, width]`, on the CPU, in fp32.

        It has `width: int` and `words: str`, the name of the parameter whose rows `Packed.tokens` numbers, and
        `depth(name: str) -> int` says how many layers down a parameter is: 0 behind the last layer (a pooler), 1 in it.

        Scratch weights are drawn from torch's global generator, which the caller has seeded.
        """
