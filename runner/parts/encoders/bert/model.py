"""BERT encoder (Devlin et al. 2019, arXiv:1810.04805) and encoders like it on packed sentences, without padding.

All tokens of all sentences are the rows of one matrix [N, width], so that linear layers, LayerNorm and GELU do no work
on padding. Only attention groups the rows into at most three padded batches of sentences of similar length. The rows of
one sentence never mix with another's, hence never with another task's. Two optimizations follow:

- If only [CLS] is used, the last layer is computed for the [CLS] rows alone (keys and values still for all rows).
- One forward and one backward pass serve all tasks. Every parameter may be replaced (`torch.func.functional_call`) by a
  *bank*, the parameter with a leading task dimension: `p.detach().expand(T, *p.shape).requires_grad_()`. The layers
  compute with `bank[0]`, and after one `sum(losses).backward()`, `bank.grad[t]` is the gradient of task t, from the
  rows of task t alone; the gradient of the activations is computed once.

The word table may be replaced by some of its rows if `Packed.tokens` is renumbered to match (`unique` gives both),
which keeps its gradient as small as the batch. Parameters: `word position segment norm`, `blocks.0.{query key value mix
mix_norm expand contract contract_norm}` and `pooler`, each `.weight` and, but for the three tables, `.bias`. Some
architectures (`architectures.py`) lack `segment`, or have `project`, a linear layer after the embeddings (ELECTRA), or
`relative_bias`, a table of biases of the attention scores by relative position, which all layers share (MPNet).
Adapters (`adapters.py`) add parameters, some of them *private*: [T, ...], of each task.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import Packed
from .adapters import Bottleneck, LowRank, ProjectedAttention
from .architectures import Pooling, Sizes
from .ops import attention, dropout, linears, lookup, norm, relative_biases, weighted_mean
from .packing import AttentionBuckets, PackedLayout


def deviation(width: int) -> float:
    """Return the standard deviation of new weights (LeCun et al. 1998); BERT's 0.02 is too low for small encoders."""
    return 1 / math.sqrt(width)


def normal(*shape: int, deviation: float) -> nn.Parameter:
    """Return a parameter of normally distributed numbers; none on `meta`, where they import torch's compiler."""
    weight = torch.empty(*shape)
    return nn.Parameter(weight if weight.is_meta else weight.normal_(0, deviation))


class Embedding(nn.Module):
    """Embedding table [V, W] with normally distributed initial weights, as in BERT."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.weight = normal(rows, width, deviation=deviation(width))


class Linear(nn.Module):
    """Linear layer with normally distributed initial weights, as in BERT; its parameters may be banks."""

    is_private = False
    """Whether each task has its own parameters, [T, ...]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = normal(outputs, inputs, deviation=deviation(min(inputs, outputs)))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.adapter: LowRank | None = None

    def forward(self, x: Tensor, tasks: tuple[int, ...]) -> Tensor:
        """Return [N, outputs] from x [N, inputs]; `tasks` holds the number of rows of each task."""
        (result,) = fused_linear(x, tasks, self)
        return result


def fused_linear(x: Tensor, tasks: tuple[int, ...], *layers: Linear) -> tuple[Tensor, ...]:
    """Apply several layers to the same x [N, inputs] in one matrix product; return [N, outputs] of each."""
    outputs = linears(x, tasks, *(p for layer in layers for p in (layer.weight, layer.bias)),
                      is_private=layers[0].is_private)
    return tuple(layer.adapter(x, y, layer.weight, layer.bias, tasks) if layer.adapter else y
                 for layer, y in zip(layers, outputs, strict=True))


class Norm(nn.Module):
    """LayerNorm, computed in fp32 for any input dtype; its parameters may be banks."""

    is_private = False
    """Whether each task has its own parameters, [T, W]."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width)), eps

    def forward(self, x: Tensor, tasks: tuple[int, ...]) -> Tensor:
        """Return [N, W] from x [N, W]; `tasks` holds the number of rows of each task."""
        return norm(x.to(self.weight.dtype), self.weight, self.bias, self.eps, tasks, is_private=self.is_private)


class Block(nn.Module):
    """Post-norm transformer layer: attention, then feed-forward, each with dropout, residual and LayerNorm."""

    def __init__(self, sizes: Sizes, dropout: float) -> None:
        super().__init__()
        width, intermediate, eps = sizes.width, sizes.intermediate, sizes.eps
        self.dropout, self.gelu = dropout, sizes.gelu
        self.query, self.key, self.value, self.mix = (Linear(width, width) for _ in range(4))
        self.mix_norm, self.contract_norm = Norm(width, eps), Norm(width, eps)
        self.expand, self.contract = Linear(width, intermediate), Linear(intermediate, width)
        self.mix_adapter: Bottleneck | None = None
        self.contract_adapter: Bottleneck | None = None

    def forward(self, queries: Tensor, keys: Tensor, q_buckets: AttentionBuckets, k_buckets: AttentionBuckets,
                biases: tuple[Tensor, ...] = (), added: Tensor | None = None) -> Tensor:
        """Return the output rows [N', W] of the rows `queries` [N', W], which attend to the rows `keys` [N, W].

        `q_buckets` and `k_buckets` are their layouts, `biases` [B*H, Lq, L] of each bucket are added to the scores, and
        `added` [N', W] to the output before the last LayerNorm.
        """
        p = self.dropout if self.training else 0.0
        if queries is keys:
            query, key, value = fused_linear(keys, k_buckets.tasks, self.query, self.key, self.value)
        else:
            query = self.query(queries, q_buckets.tasks)
            key, value = fused_linear(keys, k_buckets.tasks, self.key, self.value)
        tasks = q_buckets.tasks
        mixed = dropout(self.mix(attention(query, key, value, q_buckets, k_buckets, p, *biases), tasks), p)
        mixed = self.mix_adapter(mixed, tasks) if self.mix_adapter else mixed
        x = self.mix_norm(queries + mixed, tasks)
        wide = functional.gelu(self.expand(x, tasks), approximate=self.gelu)
        output = dropout(self.contract(wide, tasks), p)
        output = self.contract_adapter(output, tasks) if self.contract_adapter else output
        result: Tensor = self.contract_norm(x + output if added is None else x + output + added, tasks)
        return result


class Bert(nn.Module):
    """BERT-like encoder: maps `Packed` sentences to embeddings [S, width]."""

    words = "word.weight"
    """Name of the embedding table that `Packed.tokens` indexes."""

    new_parameters: tuple[str, ...] = ()
    """Parameters that no pretrained weights have; they begin at zero."""

    def __init__(self, sizes: Sizes, *, dropout: float = 0.1, pooling: Pooling = "pooler", averaged: int = 1,
                 poolings: Iterable[str] = (), mask: int | None = 0) -> None:
        super().__init__()
        self.sizes, self.width, self.heads = sizes, sizes.width, sizes.heads
        self.dropout, self.pooling, self.averaged, self.mask = dropout, pooling, averaged, mask
        narrow = sizes.embedding or sizes.width
        self.word, self.position = Embedding(sizes.vocabulary, narrow), Embedding(sizes.positions, narrow)
        if sizes.segments:
            self.segment = Embedding(sizes.segments, narrow)
        self.norm = Norm(narrow, sizes.eps)
        if sizes.embedding:
            self.project = Linear(narrow, sizes.width)
        if sizes.relative_buckets:
            self.relative_bias = Embedding(sizes.relative_buckets, sizes.heads)
        self.blocks = nn.ModuleList(Block(sizes, dropout) for _ in range(sizes.layers))
        self.pals: ProjectedAttention | None = None
        """Attention of each task, whose output is added to that of each layer."""
        if "pooler" in (pooling, *poolings):
            self.pooler = Linear(sizes.width, sizes.width)
        if "attention" in (pooling, *poolings):
            self.attention = Linear(sizes.width, 1)
            nn.init.zeros_(self.attention.weight)  # at first, the mean of all tokens
            self.new_parameters = ("attention.weight", "attention.bias")

    def depth(self, name: str) -> int:
        """Return a parameter's layer from the top: 0 for the pooler, 1 for the last block, ..., last the embeddings."""
        module, _, rest = name.partition(".")
        if module == "blocks":
            return len(self.blocks) - int(rest.partition(".")[0])
        return 0 if module in ("pooler", "attention", "pals") else len(self.blocks) + 1

    def merged_state(self, task: int = 0) -> dict[str, Tensor]:
        """Return the tensors of an encoder without adapters that computes the same, for a task if each has its own.

        Only low-rank updates and private layers can be merged.
        """
        adapted = {f"{name}.weight": module.adapter for name, module in self.named_modules()
                   if isinstance(module, Linear) and module.adapter is not None}
        own = {f"{path}.{name}" for path, module in self.named_modules() if getattr(module, "is_private", False)
               for name, _ in module.named_parameters(recurse=False)}
        state = {}
        for name, tensor in self.state_dict().items():
            if ".adapter." not in name:
                plain = tensor[task] if name in own else tensor
                state[name] = adapted[name].merged(plain, task) if name in adapted else plain
        return state

    def hidden(self, packed: Packed) -> Tensor:
        """Return the last hidden states [N, width] of all tokens."""
        layout = PackedLayout.of(packed, self.heads, self.norm.weight.device)
        inputs, biases = self._top_inputs(packed, layout)
        return self._layer(-1, inputs[-1], layout, biases)[:len(packed.tokens)]

    def forward(self, packed: Packed, poolings: Sequence[str] = ()) -> Tensor:
        """Return the sentence embeddings [S, width]; `poolings` are those of the sections if they differ."""
        layout = PackedLayout.of(packed, self.heads, self.norm.weight.device)
        inputs, biases = self._top_inputs(packed, layout)
        wanted = {*poolings} or {self.pooling}
        if wanted == {"pooler"} or wanted == {"cls"}:
            first = self._of_first(inputs, biases, layout)
            return self._through_pooler(first, layout.first.tasks) if wanted == {"pooler"} else first
        states = _mean([*inputs[1:], self._layer(-1, inputs[-1], layout, biases)])
        if len(wanted) == 1:
            return self._pooled(wanted.pop(), states, len(packed.tokens), layout.lengths, layout.first.tasks,
                                layout.rows.tasks)
        lengths, parts = packed.lengths.split_with_sizes(packed.sections), []
        tokens = [int(part.sum()) for part in lengths]
        for task, rows in enumerate(states[:sum(tokens)].split_with_sizes(tokens)):
            alone = [number == task for number in range(len(tokens))]
            parts.append(self._pooled(poolings[task], rows, len(rows), lengths[task].to(rows.device),
                                      tuple(is_it * len(lengths[task]) for is_it in alone),
                                      tuple(is_it * len(rows) for is_it in alone)))
        return torch.cat(parts)

    def _pooled(self, pooling: str, states: Tensor, real: int, lengths: Tensor, tasks: tuple[int, ...],
                row_tasks: tuple[int, ...]) -> Tensor:
        """Return the embeddings [S, width] of sentences from the states [N.., width] of their tokens.

        The first `real` rows are tokens, the others padding. `lengths` int64 [S] holds the number of tokens of each
        sentence, `tasks` and `row_tasks` the numbers of sentences and of rows of each task.
        """
        ends = lengths.cumsum(0)
        if pooling == "last":
            return states.index_select(0, ends - 1)
        if pooling in ("pooler", "cls"):
            first = states.index_select(0, ends - lengths)
            return self._through_pooler(first, tasks) if pooling == "pooler" else first
        if pooling == "attention":
            scores = self.attention(states, row_tasks).to(states.dtype)
            return weighted_mean(states[:real], scores[:real], lengths)
        return torch.segment_reduce(states[:real], pooling, lengths=lengths, unsafe=True)

    def _through_pooler(self, first: Tensor, tasks: tuple[int, ...]) -> Tensor:
        """Return BERT's pooler of the states [S, width] of the first tokens."""
        result: Tensor = self.pooler(first, tasks).to(first.dtype).tanh()
        return result

    def _of_first(self, inputs: list[Tensor], biases: tuple[Tensor, ...], layout: PackedLayout) -> Tensor:
        """Return the states [S, width] of the first tokens, for which alone the last layer is computed."""
        below = [x.index_select(0, layout.starts) for x in inputs]
        of_first = tuple(bias[:, :1] for bias in biases)
        last = self._block(-1, below[-1], inputs[-1], layout.first, layout.rows, of_first)
        return _mean([*below[1:], last])

    def _top_inputs(self, packed: Packed, layout: PackedLayout) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """Return the input states [N.., width] of the top `averaged` layers, padding rows included, lowest first.

        Also returns the biases of the attention scores of each bucket.
        """
        tasks = layout.rows.tasks
        tokens = functional.pad(packed.tokens, (0, len(layout.positions) - len(packed.tokens)))
        words = lookup(self.word.weight, tokens.to(layout.starts.device), tasks)
        x: Tensor = self.norm(words + lookup(self._place_embeddings(layout), layout.positions, tasks), tasks)
        x = dropout(x, self.dropout if self.training else 0.0)
        if self.sizes.embedding:
            x = self.project(x, tasks).to(x.dtype)
        biases = relative_biases(self.relative_bias.weight, layout.rows) if self.sizes.relative_buckets else ()
        inputs = [x]
        for number in range(len(self.blocks) - 1):
            inputs = [*inputs, self._layer(number, inputs[-1], layout, biases)][-self.averaged:]
        return inputs, biases

    def _place_embeddings(self, layout: PackedLayout) -> Tensor:
        """Return the sums of position and segment embeddings [segments * longest, W], one block per segment.

        With a single segment embedding, both segments share it.
        """
        first = self.sizes.first_position
        positions = self.position.weight[..., first:first + layout.longest, :]
        if not self.sizes.segments:
            return torch.cat([positions] * layout.segments, dim=-2)
        segments = self.segment.weight
        kinds = [min(number, segments.shape[-2] - 1) for number in range(layout.segments)]
        return torch.cat([positions + segments[..., kind:kind + 1, :] for kind in kinds], dim=-2)

    def _layer(self, number: int, x: Tensor, layout: PackedLayout, biases: tuple[Tensor, ...]) -> Tensor:
        """Apply one layer to all rows [N, width]."""
        return self._block(number, x, x, layout.rows, layout.rows, biases)

    def _block(self, number: int, queries: Tensor, keys: Tensor, q_buckets: AttentionBuckets,
               k_buckets: AttentionBuckets, biases: tuple[Tensor, ...]) -> Tensor:
        """Apply one layer to the rows `queries` [N', width], which attend to the rows `keys` [N, width]."""
        added = None if self.pals is None else self.pals(
            number, queries, keys, q_buckets, k_buckets, self.dropout if self.training else 0.0)
        result: Tensor = self.blocks[number](queries, keys, q_buckets, k_buckets, biases, added)
        return result


def _mean(states: list[Tensor]) -> Tensor:
    """Return the mean of the states of several layers."""
    return states[0] if len(states) == 1 else torch.stack(states).mean(0)
