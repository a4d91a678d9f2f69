"""Multi-task network (encoder and heads) and its losses and per-task gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import TrainingError
from ..old_names import warn_of_old_name
from ..parts.combiners import Combiner
from ..parts.encoders import Packed
from ..specs.spec import Model
from ..tasks.data import Task
from . import masked_lm
from .batches import Batch
from .distributed import ProcessGroup
from .embedding_rows import EmbeddingRows

if TYPE_CHECKING:
    from ..parts.encoders.bert.model import Bert


class Network(nn.Module):
    """Encoder and task heads of a leaf: maps packed sentences to the scores of each task."""

    def __init__(self, model: Model, tasks: Mapping[str, Task], encoder: nn.Module) -> None:
        super().__init__()
        self.model, self.tasks = model, tasks
        self.encoder = encoder.requires_grad_(not model.encoder.freeze)
        if model.encoder.frozen_layers:
            self._freeze_lowest(model.encoder.frozen_layers)
        self.private: frozenset[str] = frozenset()
        """The encoder's parameters that each task has for itself, [T, ...], by name."""
        self.poolings = model.poolings
        self.base: frozenset[str] = frozenset()
        """The encoder's own parameters, by name, if an adapter was attached."""
        width = cast(int, encoder.width)
        heads = sorted(model.heads.items())  # the order of keys in a spec must not change the weights that are drawn
        self.heads = nn.ModuleDict({name: head.build(width, tasks[name]) for name, head in heads})
        self.regularizer = nn.Module()
        """The regularizer's own layers, which exist in training only and are not stored with the leaf."""
        self.dropout = nn.Dropout(model.encoder.dropout)
        self.words: EmbeddingRows | None = None
        self._untrained: list[tuple[nn.Parameter, Tensor, Tensor]] = []
        self.words_name = cast(str, encoder.words) if model.encoder.has_word_table else ""
        self.start: dict[str, Tensor] = {}
        """The encoder's initial parameters without the word table, if the regularizer needs them."""
        self.ranks = ProcessGroup()
        """Process group of the ranks that train this leaf together."""
        self.gram: np.ndarray | None = None
        """Gram matrix [T, T] of the task gradients of the last step, if they were computed separately."""

    def attach_adapter(self) -> None:
        """Add the adapter of the model to the encoder, and freeze the encoder's own weights if it says so."""
        adapter = self.model.adapter
        if not adapter:
            return
        own = {name: p for name, p in self.encoder.named_parameters() if name not in self._new_parameters}
        for parameter in own.values() if adapter.freezes_encoder else ():
            parameter.requires_grad_(False)
        adapter.attach(cast("Bert", self.encoder), len(self.heads))
        self.private = frozenset(f"{prefix}.{name}" for prefix, module in self.encoder.named_modules()
                                 if getattr(module, "is_private", False)
                                 for name, _ in module.named_parameters(recurse=False))
        self.base = frozenset(own) - self.private
        for name in self.private:
            if self.encoder.get_parameter(name).shape[0] != len(self.heads):
                raise TrainingError(f"the private parameter `{name}` of the adapter `{adapter.type}` has no leading "
                                    f"dimension of {len(self.heads)}, the number of tasks")

    @property
    def _new_parameters(self) -> tuple[str, ...]:
        """Names of the encoder's parameters that its files lack."""
        return cast("tuple[str, ...]", getattr(self.encoder, "new_parameters", ()))

    def _check_words_can_be_predicted(self) -> None:
        """Raise TrainingError if the regularizer predicts words, and there is no [MASK], or they are too narrow."""
        if self.model.regularizer and self.model.regularizer.needs_tokens:
            name, width = self.model.regularizer.type, self.encoder.get_parameter(self.words_name).shape[-1]
            if self.encoder.mask is None:
                raise TrainingError(f"the regularizer `{name}` needs a token [MASK], which the tokenizer lacks")
            if width != self.encoder.width:
                raise TrainingError(f"the regularizer `{name}` needs word embeddings as wide as the encoder, "
                                    f"{self.encoder.width}; these are {width} wide")

    def _freeze_lowest(self, layers: int) -> None:
        """Freeze the embeddings and the lowest layers."""
        depths = {name: self._depth(name) for name, _ in self.encoder.named_parameters()}
        for name, parameter in self.encoder.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and depths[name] < max(depths.values()) - layers)

    def prepare_training(self, used: Tensor) -> dict[str, nn.Parameter]:
        """Return the trainable parameters by name; of the word table, only the rows `used`, int64 [U].

        Also builds the regularizer's own layers and copies the initial weights that it needs.
        """
        if self.model.regularizer:
            self._check_words_can_be_predicted()
            self.regularizer = self.model.regularizer.build(cast(int, self.encoder.width))
            self.regularizer.to(next(self.encoder.parameters()).device)
        if self.model.regularizer and self.model.regularizer.needs_start:
            self.start = {name: p.detach().clone() for name, p in self.encoder.named_parameters()
                          if name != self.words_name}
        trained = {name: p for name, p in self.named_parameters() if p.requires_grad}
        self._untrained = self._rows_of_untrained_tasks()
        name = f"encoder.{self.words_name}"
        if name in trained:
            self.words = EmbeddingRows(trained[name], used)
            trained[name] = self.words.rows
        return trained

    def _rows_of_untrained_tasks(self) -> list[tuple[nn.Parameter, Tensor, Tensor]]:
        """Return each private parameter, the numbers of the tasks that are not trained, and a copy of their rows."""
        numbers = [number for number, task in enumerate(self.heads) if task not in self.model.trained]
        index = torch.tensor(numbers, dtype=torch.int64, device=next(self.parameters()).device)
        private = [self.encoder.get_parameter(name) for name in sorted(self.private)] if numbers else []
        return [(parameter, index, parameter.detach()[index].clone()) for parameter in private]

    @torch.no_grad()
    def keep_untrained(self) -> None:
        """Undo what an optimizer's step, such as its weight decay, did to the private parameters of untrained tasks."""
        for parameter, index, rows in self._untrained:
            parameter.index_copy_(0, index, rows)

    @property
    def in_files(self) -> frozenset[str]:
        """Names of the parameters that stay as they are in the encoder's files, so that a run does not store them."""
        return frozenset() if self.model.stores_encoder else frozenset(f"encoder.{name}" for name in self.base)

    def trained_state(self) -> dict[str, Tensor]:
        """Return the tensors that the encoder's files do not have, by name."""
        in_files = self.in_files
        return {name: tensor for name, tensor in self.state_dict().items() if name not in in_files}

    def weights(self) -> dict[str, Tensor]:
        """Return the tensors to store for a trained leaf, by name."""
        return {name: tensor for name, tensor in self.trained_state().items() if not name.startswith("regularizer.")}

    @property
    def size(self) -> int:
        """Number of parameters of encoder and heads."""
        return sum(tensor.numel() for name, tensor in self.state_dict().items() if not name.startswith("regularizer."))

    def load_trained(self, tensors: Mapping[str, Tensor]) -> None:
        """Load tensors with the names of `trained_state`. Raise RuntimeError if names or shapes differ."""
        state = self.state_dict()
        self.load_state_dict({**{name: state[name] for name in self.in_files}, **tensors})

    def groups(self, trained: Mapping[str, nn.Parameter]) -> list[dict[str, Any]]:
        """Return torch parameter groups (`params`), each with its factor `share` of the learning rate.

        There is a single group if `layer_decay` is 1.
        """
        decay = self.model.optimizer.layer_decay
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in trained.items():
            module, _, rest = name.partition(".")
            share = decay ** self._depth(rest) if module == "encoder" and decay < 1 else 1.0
            groups.setdefault(share, []).append(parameter)
        return [{"params": parameters, "share": share} for share, parameters in groups.items()]

    def _depth(self, name: str) -> int:
        return cast("Callable[[str], int]", self.encoder.depth)(name)

    def write_back(self) -> None:
        """Copy the trained rows into the word table, before it is read as a whole."""
        if self.words:
            self.words.write_back()

    def read_back(self) -> None:
        """Copy the trained rows from the word table, after it was loaded."""
        if self.words:
            self.words.read_back()

    def clear(self) -> None:
        """Zero all gradients."""
        self.zero_grad()
        if self.words:
            self.words.clear()

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients by name; of the word table, only the rows gathered last."""
        gradients = {name: p.grad for name, p in self.named_parameters() if p.grad is not None}
        return gradients | ({f"encoder.{self.words_name}": self.words.gradient()} if self.words else {})

    def embed(self, packed: Packed, tasks: Sequence[str], parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the embeddings [S, width] of packed sentences; `tasks` holds the task of each section.

        `parameters` replace those of the encoder.
        """
        replaced = self.of_tasks(tasks, parameters or {})
        more = (tuple(self.poolings[task] for task in tasks),) if self.poolings else ()
        with self.precision():
            if replaced:
                embeddings = torch.func.functional_call(self.encoder, replaced, (packed, *more))
            else:
                embeddings = self.encoder(packed, *more)
        return cast(Tensor, self.dropout(embeddings.float()))

    def of_tasks(self, tasks: Sequence[str], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return parameters that replace those of the encoder, with the private ones reduced to those of `tasks`."""
        known = list(self.heads)
        if not self.private or list(tasks) == known:
            return dict(parameters)
        own = dict(self.encoder.named_parameters())
        numbers = [known.index(task) for task in tasks]
        first, last = numbers[0], numbers[-1] + 1
        is_range = numbers == list(range(first, last))
        private = {name: parameters.get(name, own[name]) for name in sorted(self.private)}
        return {**parameters, **{name: p[first:last] if is_range else p[numbers] for name, p in private.items()}}

    def encoded_alike(self, tasks: Sequence[str]) -> list[tuple[str, ...]]:
        """Group tasks so that equal sentences have the same embedding for all tasks of a group."""
        groups: dict[tuple[str, str], list[str]] = {}
        for task in tasks:
            groups.setdefault((task if self.private else "", self.poolings.get(task, "")), []).append(task)
        return [tuple(group) for group in groups.values()]

    def precision(self) -> torch.autocast:
        """Return the autocast context for the precision of the spec."""
        bf16 = self.model.train.precision == "bf16"
        return torch.autocast(next(self.encoder.parameters()).device.type, torch.bfloat16, enabled=bf16)

    def scores(self, task: str, embeddings: tuple[Tensor, ...]) -> Tensor:
        """Return the scores [n, k] of a task from the embeddings [n, width] of each sentence, or of the joint pair."""
        return self.model.heads[task].scores(self.heads[task], embeddings)

    def losses(self, batch: Batch, parameters: dict[str, Tensor] | None = None) -> list[Tensor]:
        """Return the weighted mean loss of each task of the batch; for a micro-batch, its contribution to that mean."""
        step, regularizer = NetworkStep(self, batch, parameters), self.model.regularizer
        return regularizer.losses(step) if regularizer else step.losses(step.scores())

    def backward(self, batch: Batch, combiner: Combiner, random: np.random.Generator, parts: int = 1,
                 compare: bool = False) -> Tensor:
        """Set every parameter's gradient for one step and return the losses [T].

        Computing the step in `parts` micro-batches saves memory and gives the gradients and losses of the whole batch.
        Sets `gram` to the Gram matrix of the task gradients if the combiner needs it or `compare` is true.
        """
        tasks = len(batch.labels)
        self.gram = None
        weights = np.ones(tasks) if combiner.needs_gram else combiner.shared(np.zeros((tasks, tasks)), random)
        shared: dict[str, Tensor] = {name: p for name, p in self.encoder.named_parameters()
                                     if p.requires_grad and name not in self.private}
        if not shared and self.words is None:  # a frozen encoder has no shared gradients to combine
            return self._accumulate(batch, parts, weights)
        replaced = {}
        if self.words:
            rows, batch = self.words.gather(batch)
            shared[self.words_name] = rows
            replaced[self.words_name] = rows
        if tasks > 1 and (combiner.needs_gram or compare):
            return self._combine(batch, parts, combiner, random, weights, shared)
        losses = self._accumulate(batch, parts, weights, {name: p.requires_grad_() for name, p in replaced.items()})
        if self.words:
            self.words.set_gradient(cast(Tensor, rows.grad))
        return losses

    def _accumulate(self, batch: Batch, parts: int, weights: np.ndarray,
                    replaced: dict[str, Tensor] | None = None) -> Tensor:
        """Accumulate the gradients of the weighted losses over micro-batches and ranks; return the losses [T]."""
        shares = []
        with self.ranks.adding() as sums:
            for part in self.ranks.share(batch, parts):
                losses = torch.stack(self.losses(part, replaced))
                (losses * torch.from_numpy(weights).to(losses)).sum().backward()  # type: ignore[no-untyped-call]
                shares.append(losses.detach())
            total = torch.stack(shares).sum(0)
            parameters = (*self.parameters(), *(replaced or {}).values())
            sums += [total, *(p.grad for p in parameters if p.grad is not None)]
        return total

    def _combine(self, batch: Batch, parts: int, combiner: Combiner, random: np.random.Generator,
                 weights: np.ndarray, shared: Mapping[str, Tensor]) -> Tensor:
        """Compute each task's gradient of the shared parameters and combine them by the combiner's coefficients."""
        tasks, encoder_parameters = len(weights), dict(self.encoder.named_parameters())
        compute = self._by_banks if self.model.encoder.carries_banks else self._by_passes
        losses, by_task = compute(batch, parts, weights, shared)
        gradients = {name: gradient.flatten(1) for name, gradient in by_task.items()}
        gram = sum((g @ g.T for g in gradients.values()), torch.zeros(tasks, tasks, device=losses.device))
        self.gram = gram.double().cpu().numpy()
        factors = combiner.shared(self.gram, random) if combiner.needs_gram else np.ones(tasks)
        coefficients = torch.from_numpy(factors).to(losses)
        for name, gradient in gradients.items():
            combined = (coefficients @ gradient).view_as(shared[name])
            if self.words and name == self.words_name:
                self.words.set_gradient(combined)
            else:
                encoder_parameters[name].grad = combined
        return losses

    def _by_banks(self, batch: Batch, parts: int, weights: np.ndarray,
                  shared: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the losses [T] and each task's gradients [T, ...] of the shared parameters, from one backward pass.

        Rows of different tasks never mix inside the encoder, so one backward pass serves all tasks: parameters are
        banks with a leading task dimension [T, ...], and bank row t gets the gradient of the rows of task t.
        """
        banks = {name: p.detach().expand(len(weights), *p.shape).requires_grad_() for name, p in shared.items()}
        losses = self._accumulate(batch, parts, weights, banks)
        return losses, {name: bank.grad for name, bank in banks.items() if bank.grad is not None}

    def _by_passes(self, batch: Batch, parts: int, weights: np.ndarray,
                   shared: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what `_by_banks` returns, from one backward pass a task; also set the gradients of all others."""
        gradients = {name: p.new_zeros(len(weights), *p.shape) for name, p in shared.items()}
        others = [p for name, p in self.named_parameters()
                  if p.requires_grad and name.removeprefix("encoder.") not in shared]
        total = torch.zeros(len(weights), device=next(self.parameters()).device)
        with self.ranks.adding() as sums:
            for part in self.ranks.share(batch, parts):
                losses = self.losses(part)
                total += torch.stack(losses).detach()
                for task, loss in enumerate(losses):
                    found = torch.autograd.grad(loss * float(weights[task]), [*shared.values(), *others],
                                                retain_graph=task < len(losses) - 1, allow_unused=True)
                    for gradient, each in zip(gradients.values(), found, strict=False):
                        if each is not None:
                            gradient[task] += each
                    for p, each in zip(others, found[len(shared):], strict=True):
                        if each is not None:
                            p.grad = each.clone() if p.grad is None else p.grad + each
            sums += [total, *gradients.values(), *(p.grad for p in others if p.grad is not None)]
        return total, gradients


@dataclass(frozen=True)
class NetworkStep:
    """Implements `runner.parts.regularizers.Step` for one batch or micro-batch."""

    network: Network
    batch: Batch
    replaced: Mapping[str, Tensor] | None = None
    """Tensors that replace some of the encoder's parameters, by name: banks, or the gathered word rows."""

    def __getattr__(self, name: str) -> Any:
        """Return a method by the name that it had in mtrun 0.1, with a warning."""
        new = {"still": "detached", "missed": "masked_lm_loss"}.get(name)
        if new is None:
            raise AttributeError(name)
        warn_of_old_name(f"Step.{name}", f"Step.{new}")
        return getattr(self, new)

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The encoder's parameters by name; banks [T, ...] if task gradients are computed separately."""
        return {**dict(self.network.encoder.named_parameters()), **(self.replaced or {})}

    @property
    def start(self) -> Mapping[str, Tensor]:
        """The encoder's initial parameters, without the word table."""
        return self.network.start

    @property
    def words(self) -> Tensor:
        """The word embeddings of all tokens [N, width]."""
        words = self._words().detach()
        return words[0] if words.dim() == 3 else words

    def scores(self, parameters: Mapping[str, Tensor] | None = None, noise: Tensor | None = None) -> dict[str, Tensor]:
        """Return the scores [n, k] of each task from one forward pass; see the protocol."""
        packed, replaced = self.batch.packed, {**(self.replaced or {}), **(parameters or {})}
        if noise is not None:
            packed, replaced = self._with_words(self._words() + noise, replaced)
        blocks = self.network.embed(packed, list(self.batch.labels), replaced).split_with_sizes(packed.sections)
        return {task: self.network.scores(task, block.tensor_split(self._sequences(task)))
                for task, block in zip(self.batch.labels, blocks, strict=True)}

    def losses(self, scores: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the weighted mean loss of each task."""
        heads, tasks = self.network.model.heads, self.network.tasks
        return [self._mean(task, heads[task].loss.each(scores[task], labels, tasks[task]))
                for task, labels in self.batch.labels.items()]

    def apart(self, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> list[Tensor]:
        """Symmetric KL divergence between the scores of two passes, for each task (squared error for regression)."""
        tasks = self.network.tasks
        return [self._mean(task, divergence(first[task], second[task], tasks[task])) for task in self.batch.labels]

    def masked_lm_loss(self, p: float) -> list[Tensor]:
        """Masked-LM cross-entropy of each task's sentences, from a forward pass of its own."""
        packed, words, encoder = self.batch.packed, self.network.words, self.network.encoder
        positions, full_table = masked_lm.select(packed, p), encoder.get_parameter(self.network.words_name).detach()
        tokens, table = packed.tokens[positions], words.rows.detach() if words else full_table
        targets = words.indices(tokens, self.network.words_name in (self.replaced or {})) if words else tokens
        corrupted = masked_lm.corrupt(self._words(), positions, full_table[cast(int, encoder.mask)], table)
        unique, replaced = self._with_words(corrupted, self.replaced or {})
        with self.network.precision():
            replaced = self.network.of_tasks(list(self.batch.labels), replaced)
            states = masked_lm.states(encoder, replaced, unique)[positions.to(table.device)]
            logits = self.network.regularizer(states) @ table.T
        losses = masked_lm.sentence_losses(packed, positions, logits.float(), targets.to(table.device))
        return [block.view(self._sequences(task), -1).mean(0).sum() / self.batch.examples[task]
                for task, block in zip(self.batch.labels, losses.split_with_sizes(packed.sections), strict=True)]

    def detached(self) -> NetworkStep:
        """Return the step with the encoder's parameters detached."""
        table = self.parameters[self.network.words_name]
        constants = {name: p.detach() for name, p in self.network.encoder.named_parameters()}
        constants[self.network.words_name] = table.detach()[0] if table.dim() == 3 else table.detach()
        return replace(self, replaced=constants)

    def _words(self) -> Tensor:
        """Return the word embeddings of all tokens, [N, width], or [T, N, width] from a bank."""
        if not self.network.words_name:
            raise TrainingError("the encoder's word embeddings cannot be replaced; a regularizer that does so says "
                                "`needs_words = True`, which `mtrun check` reads")
        table = self.parameters[self.network.words_name]
        return table.index_select(-2, self.batch.packed.tokens.to(table.device))

    def _with_words(self, words: Tensor, parameters: Mapping[str, Tensor]) -> tuple[Packed, dict[str, Tensor]]:
        """Return encoder inputs and parameters that make `words` the word embeddings of the tokens.

        `words` replaces the word table, and the token ids become 0 to N - 1.
        """
        packed = self.batch.packed
        return replace(packed, tokens=torch.arange(len(packed.tokens))), {**parameters, self.network.words_name: words}

    def _sequences(self, task: str) -> int:
        """Return the number of encoder inputs of one example: 1, or 2 for a pair that is not joint."""
        return 1 if self.network.model.heads[task].joint else self.network.tasks[task].sentences

    def _mean(self, task: str, each: Tensor) -> Tensor:
        """Return the contribution of these examples' losses [n] to the weighted mean of the whole step."""
        if task in self.batch.weights:
            each = each * self.batch.weights[task]
        return self.network.model.heads[task].weight * each.sum() / self.batch.examples[task]


def divergence(first: Tensor, second: Tensor, task: Task) -> Tensor:
    """Symmetric KL divergence [n] of scores [n, k], (KL(p, q) + KL(q, p)) / 2 in nats; for regression (s - t)^2.

    Of a multi-label task it is the mean over the labels.
    """
    if task.kind == "regression":
        return (first[:, 0] - second[:, 0]) ** 2
    if task.kind == "multilabel":
        p, q = first.sigmoid(), second.sigmoid()
        return ((p - q) * (first - second)).mean(1) / 2
    if task.kind == "binary":  # the logit of class 1; that of class 0 is 0
        first, second = (functional.pad(scores, (1, 0)) for scores in (first, second))
    p, q = first.log_softmax(1), second.log_softmax(1)
    return ((p.exp() - q.exp()) * (p - q)).sum(1) / 2


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Return the name of the first tensor that has a non-finite number, or an empty string.

    The total norm is checked first, which costs less than 1 % of a step; it also overflows for numbers beyond 1e19.
    """
    if torch.nn.utils.get_total_norm(list(tensors.values())).isfinite():
        return ""
    return next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), "")
