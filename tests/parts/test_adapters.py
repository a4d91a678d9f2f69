"""Adapters against peft and definitions written here: outputs, gradients by task, merging, storage."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import peft
import pytest
import torch
from bert_cases import DOUBLE, HEADS, MODEL, Drawn, batches, by_task, near, ours, pack, padded
from hypothesis import given, settings
from torch import Tensor
from torch.nn import functional

from runner.parts.adapters import Adapter
from runner.parts.adapters.dora import Dora
from runner.parts.adapters.houlsby import Houlsby
from runner.parts.adapters.lora import Lora
from runner.parts.adapters.pals import Pals
from runner.parts.adapters.private_layers import PrivateLayers
from runner.parts.encoders.bert.model import Bert

TARGETS = {"query": "query", "key": "key", "value": "value", "attention_output": "attention.output.dense",
           "intermediate": "intermediate.dense", "output": r"layer.\d.output.dense"}
OURS = {"attention.self.query": "query", "attention.self.key": "key", "attention.self.value": "value",
        "attention.output.dense": "mix", "intermediate.dense": "expand", "output.dense": "contract"}


def attached(adapter: Adapter, tasks: int = 1, pooling: str = "pooler", model: Any = DOUBLE) -> Bert:
    """Return the encoder of the tests with an adapter whose parameters are all random."""
    made = ours(model, pooling)
    made.requires_grad_(not adapter.freezes_encoder)
    torch.manual_seed(3)
    before = dict(made.named_parameters())
    adapter.attach(made, tasks)
    made.to(model.dtype)
    for name, parameter in made.named_parameters():
        if name not in before or parameter.shape != before[name].shape:
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    return made.eval()


def sentences(count: int, seed: int = 0) -> list[Tensor]:
    torch.manual_seed(seed)
    return [torch.randint(1, 90, (int(torch.randint(1, 20, ())),)) for _ in range(count)]


def private(made: Bert) -> list[str]:
    return [f"{prefix}.{name}" for prefix, module in made.named_modules() if getattr(module, "is_private", False)
            for name, _ in module.named_parameters(recurse=False)]


def of_task(made: Bert, task: int) -> dict[str, Tensor]:
    """Return the private parameters of one task."""
    return {name: made.get_parameter(name).detach()[task:task + 1] for name in private(made)}


# LoRA and DoRA against peft -----------------------------------------------------------------------------------------


def peft_model(targets: tuple[str, ...], is_dora: bool, rank: int = 4, alpha: float = 6.0) -> Any:
    names = "|".join(TARGETS[target] for target in targets)
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, use_dora=is_dora, lora_dropout=0.0,
                             target_modules=rf".*({names})")
    model = peft.get_peft_model(copy.deepcopy(MODEL).double(), config).eval()
    torch.manual_seed(8)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            with torch.no_grad():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def copied(model: Any, made: Bert) -> dict[str, str]:
    """Copy peft's parameters into ours; return their names by ours."""
    names = {}
    for theirs, parameter in model.named_parameters():
        if "lora_" not in theirs:
            continue
        path, kind = theirs.split(".encoder.layer.")[1].split(".lora_")
        layer, _, module = path.partition(".")
        name = {"A": "down", "B": "up", "m": "magnitude"}[kind[0]]
        mine = f"blocks.{layer}.{OURS[module]}.adapter.{name}"
        made.get_parameter(mine).data.copy_(parameter.detach().view_as(made.get_parameter(mine)))
        names[mine] = theirs
    assert set(names) == {name for name, _ in made.named_parameters() if ".adapter." in name}
    return names


@pytest.mark.parametrize("kind", [Lora, Dora])
@pytest.mark.parametrize("targets", [("query", "value"), tuple(TARGETS)])
def test_lora_and_dora_are_those_of_peft(kind: type[Lora], targets: tuple[Any, ...]) -> None:
    made = attached(kind(rank=4, alpha=6.0, targets=targets))
    model = peft_model(targets, kind is Dora)
    names, texts = copied(model, made), sentences(7)
    theirs, mine = model(**padded(texts)).pooler_output, made(pack(texts, (7,)))
    assert (mine - theirs).abs().max() < 1e-6
    sum(by_task(theirs, (7,))).backward()
    sum(by_task(mine, (7,))).backward()
    gradients = dict(model.named_parameters())
    for name, other in names.items():
        grad, expected = made.get_parameter(name).grad, gradients[other].grad
        assert grad is not None and near(grad, expected.view_as(grad), 1e-6), name
    trained = {name for name, p in made.named_parameters() if p.grad is not None}
    assert trained == set(names)


@pytest.mark.parametrize("kind", [Lora, Dora])
def test_merged_weights_are_those_of_peft_and_compute_the_same(kind: type[Lora]) -> None:
    made = attached(kind(rank=4, alpha=6.0, targets=tuple(TARGETS)))
    model, texts = peft_model(tuple(TARGETS), kind is Dora), sentences(5)
    copied(model, made)
    before = made(pack(texts, (5,)))
    whole = model.merge_and_unload().state_dict()
    plain = ours(DOUBLE)
    merged = made.merged_state()
    assert merged.keys() == plain.state_dict().keys()
    plain.load_state_dict(merged)
    for theirs, module in OURS.items():
        for layer in range(3):
            expected = whole[f"encoder.layer.{layer}.{theirs}.weight"]
            assert (merged[f"blocks.{layer}.{module}.weight"] - expected).abs().max() < 1e-9
    assert (plain.eval()(pack(texts, (5,))) - before).abs().max() < 1e-9


def test_an_untrained_adapter_leaves_the_encoder_as_it_is() -> None:
    texts = sentences(6)
    expected = ours(DOUBLE).eval()(pack(texts, (2, 4)))
    for adapter in (Lora(), Dora(), Lora(per_task=True), Pals(size=HEADS * 3), PrivateLayers(layers=2)):
        made = ours(DOUBLE)
        adapter.attach(made, 2)
        assert (made.double().eval()(pack(texts, (2, 4))) - expected).abs().max() < 1e-9, adapter.type
    nearly = ours(DOUBLE)
    Houlsby(size=8).attach(nearly, 1)
    assert near(nearly.double().eval()(pack(texts, (2, 4))), expected, 0.02)


# Parameters of each task, and banks -----------------------------------------------------------------------------------

EACH = [Lora(rank=3, per_task=True), Dora(rank=3, per_task=True), Houlsby(size=6, per_task=True), Pals(size=HEADS * 3),
        PrivateLayers(layers=2)]
SHARED = [Lora(rank=3), Dora(rank=3, targets=("intermediate", "key")), Houlsby(size=6)]


@pytest.mark.parametrize("pooling", ["pooler", "mean"])
@pytest.mark.parametrize("adapter", EACH, ids=lambda adapter: adapter.type)
def test_each_task_is_computed_with_its_own_parameters_alone(adapter: Adapter, pooling: str) -> None:
    made, texts = attached(adapter, 3, pooling), sentences(9)
    together = made(pack(texts, (2, 3, 4)))
    for task, (begin, end) in enumerate(((0, 2), (2, 5), (5, 9))):
        alone = torch.func.functional_call(made, of_task(made, task), (pack(texts[begin:end], (end - begin,)),))
        assert (together[begin:end] - alone).abs().max() < 1e-9
    other = torch.func.functional_call(made, of_task(made, 1), (pack(texts[:2], (2,)),))
    assert (together[:2] - other).abs().max() > 1e-3


@settings(max_examples=10, deadline=None)
@given(drawn=batches())
@pytest.mark.parametrize("adapter", [*SHARED, *EACH], ids=lambda a: f"{a.type}-{getattr(a, 'per_task', True)}")
def test_banks_hold_the_gradient_of_each_task(adapter: Adapter, drawn: Drawn) -> None:
    texts, sections = drawn
    made = attached(adapter, len(sections))
    hidden = set(private(made))
    shared = {name: p for name, p in made.named_parameters() if p.requires_grad and name not in hidden}
    banks = {name: p.detach().expand(len(sections), *p.shape).requires_grad_() for name, p in shared.items()}
    losses = by_task(torch.func.functional_call(made, banks, (pack(texts, sections),)), sections)
    sum(losses).backward()
    of_private = {name: made.get_parameter(name).grad for name in hidden}
    for task in range(len(sections)):
        made.zero_grad()
        by_task(made(pack(texts, sections)), sections)[task].backward()
        for name, parameter in shared.items():
            grad, expected = banks[name].grad, parameter.grad
            grad = torch.zeros(len(sections), *parameter.shape) if grad is None else grad
            expected = torch.zeros_like(parameter) if expected is None else expected
            assert (grad[task] - expected).norm() <= 1e-9 * (1 + expected.norm()), name
        for name in hidden:
            own = made.get_parameter(name).grad
            assert own is not None and of_private[name] is not None
            assert (own[task] - of_private[name][task]).norm() <= 1e-9 * (1 + own[task].norm()), name
            assert own[:task].abs().sum() + own[task + 1:].abs().sum() == 0


# Bottlenecks and projected attention against definitions -----------------------------------------------------------


def hooked(module: torch.nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    module.register_forward_hook(lambda _, __, output: change(output))


def test_bottlenecks_are_those_of_the_paper() -> None:
    made, model, texts = attached(Houlsby(size=6)), copy.deepcopy(DOUBLE), sentences(6)

    def bottleneck(name: str) -> Callable[[Tensor], Tensor]:
        p = {key: value.detach() for key, value in made.get_submodule(name).named_parameters()}
        return lambda x: x + (functional.gelu(x @ p["down"].T + p["down_bias"]) @ p["up"].T + p["up_bias"])

    for number, layer in enumerate(model.encoder.layer):
        hooked(layer.attention.output.dropout, bottleneck(f"blocks.{number}.mix_adapter"))
        hooked(layer.output.dropout, bottleneck(f"blocks.{number}.contract_adapter"))
    assert (made(pack(texts, (6,))) - model(**padded(texts)).pooler_output).abs().max() < 1e-9


def test_projected_attention_is_that_of_the_paper() -> None:
    size, task = HEADS * 3, 1
    made, model, texts = attached(Pals(size=size), 2), copy.deepcopy(DOUBLE), sentences(6)
    p = {name: value[0] for name, value in of_task(made, task).items()}
    mask, inputs = padded(texts)["attention_mask"], {}

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ p[f"pals.{name}.weight"].T + p[f"pals.{name}.bias"]

    def added(number: int, x: Tensor) -> Tensor:
        narrow = linear("down", x)
        query, key, value = (linear(f"{kind}.{number}", narrow).unflatten(-1, (HEADS, -1)).transpose(1, 2)
                             for kind in ("queries", "keys", "values"))
        scores = query @ key.mT / math.sqrt(size / HEADS)
        shares = scores.masked_fill(~mask[:, None, None, :], -math.inf).softmax(-1)
        return functional.gelu(linear("up", (shares @ value).transpose(1, 2).flatten(2)))

    for number, layer in enumerate(model.encoder.layer):
        layer.register_forward_pre_hook(lambda _, args, number=number: inputs.__setitem__(number, args[0]))
        hooked(layer.output.dropout, lambda output, number=number: output + added(number, inputs[number]))
    expected = model(**padded(texts)).pooler_output
    mine = made(pack([*sentences(2, 5), *texts], (2, 6)))[2:]
    assert (mine - expected).abs().max() < 1e-9


def test_private_layers_are_copies_of_the_top_ones() -> None:
    made = attached(PrivateLayers(layers=2), 3)
    assert {name.split(".")[1] for name in private(made)} == {"1", "2"}
    assert all(made.get_parameter(name).shape[0] == 3 for name in private(made))
    assert all(p.requires_grad for p in made.parameters())
