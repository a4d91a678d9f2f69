"""Any encoder or decoder of Hugging Face's transformers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import Field, model_validator

from ...errors import CheckpointError, Place, Problem
from ...files import sha256
from ...tasks.data import Data
from . import Encoder
from .bert import checkpoints
from .bert.architectures import Pooling, longest_of
from .bert.pretrained import CONFIG, NO_POOLER, OPTIONS, PICKLED, TOKENIZER, PretrainedWeights

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
"""Keys of config.json for the number of layers."""


class HuggingFace(Encoder):
    """Any model that transformers' `AutoModel` loads from safetensors, such as ModernBERT, DeBERTa-v3 or GPT-2.

    It computes padded batches of sentences of similar length, and one backward pass a task where a combiner needs the
    gradient of each. BERT-like encoders are faster as `minbert`. Code in a repository is never run.
    """

    type = "hf"
    training_only = ("dropout", "freeze", "frozen_layers", "hidden_dropout")
    carries_banks = False
    has_word_table = False
    poolings = get_args(Pooling)

    init: str = Field(min_length=1)
    """A folder as `save_pretrained` writes it, or a repository of the Hugging Face hub with `revision`."""
    revision: str | None = Field(default=None, pattern=f"^{checkpoints.REVISION}$", json_schema_extra={"later": True})
    """Hash of the commit, 40 hex digits; for a repository of the hub only."""
    pooling: Pooling = "mean"
    """Sentence embedding: the model's pooler, the state of the first token or of the last one (decoders), the mean or
    maximum of all, or their mean with learned weights (`attention`: softmax of a linear score of each state)."""
    averaged_layers: int = Field(default=1, ge=1, le=256, json_schema_extra={"later": True})
    """Layers from the top whose states are averaged before pooling; 1 takes the last layer alone."""
    hidden_dropout: float | None = Field(default=None, ge=0, le=0.9)
    """Dropout inside the encoder; left out: as config.json says."""
    max_length: int = Field(default=512, ge=3, le=1 << 20)
    """Maximum number of tokens of a sentence, special tokens included; longer ones are truncated."""

    @model_validator(mode="after")
    def _is_no_named_checkpoint(self) -> HuggingFace:
        """Check that `init` is a folder or a repository, and that only the latter has a revision."""
        if self.init in checkpoints.NAMED or self.init == "scratch":
            raise ValueError(f"`init = \"{self.init}\"` is for the encoder `minbert`")
        checkpoints.check_revision(self.init, self.revision)
        return self

    def canonical(self) -> dict[str, Any]:
        """Return the content of the id; weights are identified by their hashes or commit (`inputs`)."""
        return {key: value for key, value in super().canonical().items() if key not in ("init", "revision")}

    def inputs(self, project: Path) -> dict[str, str]:
        """Return the sha256 of each file, or the commit of a repository."""
        if self.revision:
            return checkpoints.inputs(self.init, project, self.revision)
        folder = self.folder(project)
        options = [OPTIONS] if (folder / OPTIONS).is_file() else []
        names = [*PretrainedWeights(folder, {}).weight_files(), CONFIG, TOKENIZER, *options]
        return {name: sha256(folder / name) for name in names}

    def check(self, project: Path) -> None:
        """Raise CheckpointError if transformers is missing, or a file, or safetensors, or the positions do not do."""
        if not find_spec("transformers"):
            raise CheckpointError(Problem("the encoder `hf` needs the package `transformers`, which is not installed",
                                          hint="run `pip install 'mtrun[hf]'`"))
        if not checkpoints.is_here(self.init, self.revision):
            return
        folder = self.folder(project)
        weights, place = PretrainedWeights(folder, {}), Place(str(folder))
        if PICKLED in weights.weight_files():
            raise CheckpointError(Problem("the checkpoint has no model.safetensors", place,
                                          hint="`AutoModel.from_pretrained(...).save_pretrained(FOLDER)` writes it"))
        if not (folder / TOKENIZER).is_file():
            hint = "`AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)` writes it"
            raise CheckpointError(Problem(f"the checkpoint has no {TOKENIZER}", place, hint=hint))
        if self.pooling == "pooler" and not _has_pooler(weights.tensor_names()):
            raise CheckpointError(Problem("the checkpoint has no pooler", place, hint=NO_POOLER))
        if self.pooling == "pooler" and self.averaged_layers > 1:
            raise CheckpointError(Problem("the pooler of `hf` takes the last layer alone", place,
                                          hint="averaged_layers = 1"))
        layers = next((value for key in LAYERS if isinstance(value := weights.config().get(key), int)), None)
        for name in ("frozen_layers", "averaged_layers") if layers is not None else ():
            if getattr(self, name) > layers:
                raise CheckpointError(f"`{name}` is {getattr(self, name)}, but the encoder has {layers} layers")
        positions = longest_of(weights.config())
        if positions is not None and self.max_length > positions:
            raise CheckpointError(Problem(f"`max_length` is {self.max_length}, but `{self.init}` has {positions} "
                                          "positions", hint=f"max_length = {positions}"))

    def tokenizer(self, data: Data, project: Path) -> Tokenizer:
        """Return the tokenizer of the folder; without special tokens, it ends each sentence with that of the end."""
        from tokenizers import Tokenizer
        from tokenizers.processors import TemplateProcessing

        folder = self.folder(project)
        try:
            tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        except Exception as error:  # the library raises Exception itself
            raise CheckpointError(Problem(f"not a tokenizer: {error}", Place(str(folder / TOKENIZER)))) from None
        if not tokenizer.num_special_tokens_to_add(False):
            end = _end(folder, tokenizer)
            tokenizer.post_processor = TemplateProcessing(
                single=f"$A {end}", pair=f"$A {end} $B:1 {end}:1", special_tokens=[(end, tokenizer.token_to_id(end))])
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.max_length)
        return tokenizer

    def build(self, tokenizer: Tokenizer, project: Path, poolings: tuple[str, ...] = ()) -> torch.nn.Module:
        """Build the model with its weights in fp32; raise CheckpointError if transformers cannot load it."""
        from .padded.model import HuggingFaceModel, loaded

        return HuggingFaceModel(loaded(self.folder(project), self.hidden_dropout), self.pooling, poolings,
                                self.averaged_layers)

    def folder(self, project: Path) -> Path:
        """Return the folder of the model, downloaded if it has to be."""
        return checkpoints.folder_of(self.init, project, self.revision)


def _has_pooler(names: Sequence[str]) -> bool:
    """Return whether there is a pooler beside the embeddings, as a part of the encoder itself."""
    prefixes = {name.partition("embeddings.")[0] for name in names if "embeddings." in name}
    return any(name.startswith(f"{prefix}pooler.") for prefix in prefixes for name in names)


def _end(folder: Path, tokenizer: Tokenizer) -> str:
    """Return the token that ends a text, as tokenizer_config.json says. Raise CheckpointError without one."""
    options = PretrainedWeights(folder, {}).options()
    token = options.get("eos_token")
    token = token.get("content") if isinstance(token, dict) else token
    if not isinstance(token, str) or tokenizer.token_to_id(token) is None:
        raise CheckpointError(Problem("the tokenizer adds no special token, and names no `eos_token`",
                                      Place(str(folder / OPTIONS))))
    return token
