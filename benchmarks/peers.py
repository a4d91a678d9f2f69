"""What people use today, written as they write it: the course's training loop, direct PCGrad, Hugging Face's Trainer.

All of them train the same model as ours: `transformers`' BERT with the weights of MiniLM-L6, a linear head on one
sentence and two heads on pairs.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from .workload import Rows

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sentiment": lambda scores, labels: functional.cross_entropy(scores, labels.long()),
    "paraphrase": lambda scores, labels: functional.binary_cross_entropy_with_logits(scores[:, 0], labels),
    "similarity": lambda scores, labels: functional.mse_loss(scores[:, 0], labels),
}


class Peer(nn.Module):
    """The course's multi-task classifier: an encoder, dropout, one linear head a task.

    Sentences are embedded by the pooler or, if `is_mean`, by the mean of their tokens.
    """

    def __init__(self, folder: Path, heads: Mapping[str, nn.Module], attention: str | None, hidden: float,
                 last: float, is_mean: bool = False) -> None:
        super().__init__()
        self.bert = AutoModel.from_pretrained(folder, attn_implementation=attention, hidden_dropout_prob=hidden,
                                              attention_probs_dropout_prob=hidden)
        self.is_mean = is_mean
        self.heads = nn.ModuleDict(heads)
        self.dropout = nn.Dropout(last)

    def embed(self, encoded: Mapping[str, Tensor]) -> Tensor:
        """Return the pooled embeddings [n, width] of padded sentences."""
        found = self.bert(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"])
        mask = encoded["attention_mask"][..., None]
        out: Tensor = (found.last_hidden_state * mask).sum(1) / mask.sum(1) if self.is_mean else found.pooler_output
        return self.dropout(out)

    def scores(self, task: str, embeddings: Sequence[Tensor]) -> Tensor:
        """Return a task's scores [n, k] from the embeddings of its one or two sentences."""
        features = list(embeddings)
        if len(features) == 2:
            u, v = features
            features = [u, v, (u - v).abs(), u * v]
        scores: Tensor = self.heads[task](torch.cat(features, 1))
        return scores

    def loss(self, task: str, embeddings: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Return a task's mean loss."""
        return LOSSES[task](self.scores(task, embeddings), labels)


class Course:
    """The loop of the course's starter code, with the three tasks in one step.

    Each batch is tokenized when it is needed and padded by itself; each column of sentences is a forward pass of its
    own, five a step; the optimizer updates one tensor after another.
    """

    def __init__(self, folder: Path, heads: Mapping[str, nn.Module], rate: float, hidden: float = 0.1,
                 last: float = 0.3) -> None:
        self.model = Peer(folder, heads, "eager", hidden, last)
        self.model.train()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=rate, weight_decay=0.0, foreach=False)

    def losses(self, batch: Mapping[str, Rows]) -> list[Tensor]:
        """Return the losses of the tasks of a step, each of a graph of its own."""
        device = next(self.model.parameters()).device
        losses = []
        for task, (first, second, labels) in batch.items():
            columns = [column for column in (first, second) if column]
            encoded = [self.tokenizer(list(column), return_tensors="pt", padding=True, truncation=True).to(device)
                       for column in columns]
            losses.append(self.model.loss(task, [self.model.embed(one) for one in encoded], labels.to(device)))
        return losses

    def step(self, batch: Mapping[str, Rows]) -> list[float]:
        """Do one step on the sum of the losses, and return them."""
        self.optimizer.zero_grad()
        losses = self.losses(batch)
        torch.stack(losses).sum().backward()
        self.optimizer.step()
        return [loss.item() for loss in losses]


class DirectPCGrad(Course):
    """The same loop with gradient surgery as it is usually written: one backward a task, gradients as long vectors."""

    def step(self, batch: Mapping[str, Rows]) -> list[float]:
        """Do one step on the projected gradients, and return the losses."""
        self.optimizer.zero_grad()
        losses = self.losses(batch)
        gradients = [self._gradient(loss) for loss in losses]
        self._set(sum(self.surgery(gradients)))
        self.optimizer.step()
        return [loss.item() for loss in losses]

    def _gradient(self, loss: Tensor) -> Tensor:
        """Return a loss's gradient of the encoder as one vector; those of the heads stay where they are."""
        self.model.bert.zero_grad()
        loss.backward(retain_graph=True)
        return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad.clone()).flatten()
                          for p in self.model.bert.parameters()])

    def surgery(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Return the projected gradients; Algorithm 1 of Yu et al. 2020."""
        projected = [gradient.clone() for gradient in gradients]
        for number, mine in enumerate(projected):
            others = [g for other, g in enumerate(gradients) if other != number]
            random.shuffle(others)
            for other in others:
                inner = torch.dot(mine, other)
                if inner < 0:
                    mine -= inner * other / other.norm() ** 2
        return projected

    def _set(self, gradient: Any) -> None:
        """Cut one vector into the gradients of the encoder."""
        start = 0
        for p in self.model.bert.parameters():
            p.grad = gradient[start:start + p.numel()].view_as(p).clone()
            start += p.numel()


class _Clock(TrainerCallback):
    """Notes the processor time at the end of each step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Note the time."""
        self.ends.append(time.process_time())


class _Joint(Peer):
    """The multi-task model as Trainer wants it: one padded batch of all sentences in, the loss out."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        """Return the summed loss; `sizes` [T] says how many examples each task has."""
        embedded = self.embed({"input_ids": input_ids, "attention_mask": attention_mask})
        total, row, start = embedded.new_zeros(()), 0, 0
        for task, size in zip(sorted(LOSSES), sizes.tolist(), strict=True):
            columns = 1 if task == "sentiment" else 2
            parts = embedded[row:row + columns * size].tensor_split(columns)
            total = total + self.loss(task, parts, labels[start:start + size])
            row, start = row + columns * size, start + size
        return {"loss": total}


class HuggingFace:
    """Hugging Face's Trainer on the same steps: all sentences of a step padded together, one forward pass."""

    def __init__(self, folder: Path, heads: Mapping[str, nn.Module], rate: float, bf16: bool,
                 is_mean: bool = False) -> None:
        self.model = _Joint(folder, heads, None, 0.1, 0.3, is_mean)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.rate, self.bf16 = rate, bf16

    def seconds(self, batches: Sequence[Mapping[str, Rows]], folder: Path) -> float:
        """Return the mean time of a step over the batches but the first."""
        clock = _Clock()
        arguments = TrainingArguments(
            output_dir=str(folder), max_steps=len(batches), per_device_train_batch_size=1, learning_rate=self.rate,
            bf16=self.bf16, use_cpu=not torch.cuda.is_available(), report_to=[], save_strategy="no",
            logging_strategy="no", disable_tqdm=True, remove_unused_columns=False, dataloader_pin_memory=False)
        trainer = Trainer(model=self.model, args=arguments, train_dataset=list(batches), data_collator=self._collate,
                          callbacks=[clock])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return (clock.ends[-1] - clock.ends[0]) / (len(clock.ends) - 1)

    def _collate(self, batches: Sequence[Mapping[str, Rows]]) -> dict[str, Tensor]:
        """Return a step as one padded batch."""
        (batch,) = batches
        sentences = [text for _, (first, second, _) in sorted(batch.items()) for text in (*first, *second)]
        encoded = self.tokenizer(sentences, return_tensors="pt", padding=True, truncation=True)
        labels = [labels for _, (_, _, labels) in sorted(batch.items())]
        return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"],
                "labels": torch.cat(labels), "sizes": torch.tensor([len(each) for each in labels])}
