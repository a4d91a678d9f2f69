"""AdamW against the published update; schedules against their definition."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from projects import project
from transformers import get_cosine_schedule_with_warmup

from runner.parts.optimizers.adamw import AdamW
from runner.parts.schedules.constant import Constant
from runner.parts.schedules.cosine import Cosine
from runner.parts.schedules.linear import Linear
from runner.specs.loader import Loader
from runner.training.trainer import Trainer, TrainerCallback
from runner.worker.worker import trainer_of


def test_adamw_is_algorithm_2() -> None:
    """Loshchilov and Hutter 2019, Algorithm 2, in plain numpy."""
    part = AdamW(lr=0.02, lr_scale=0.5, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-6)
    random = np.random.default_rng(0)
    start, gradients = random.normal(size=5), random.normal(size=(7, 5))
    weight = torch.nn.Parameter(torch.tensor(start))
    optimizer = part.build([weight])
    x, m, v = start.copy(), np.zeros(5), np.zeros(5)
    for t, gradient in enumerate(gradients, 1):
        weight.grad = torch.tensor(gradient)
        optimizer.step()
        m, v = 0.8 * m + 0.2 * gradient, 0.95 * v + 0.05 * gradient**2
        x = x - 0.01 * ((m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-6) + 0.1 * x)
    np.testing.assert_allclose(weight.detach().numpy(), x, rtol=1e-10)


def test_adamw_steps_and_resumes_as_that_of_torch_bit_for_bit() -> None:
    """Two groups, rates that change, a parameter that has a gradient in some steps and one that never has."""
    chance = torch.Generator().manual_seed(0)
    shapes = ((300, 7), (5,), (3, 4), (2,))
    start = [torch.randn(shape, generator=chance) for shape in shapes]
    part = AdamW(lr=0.02, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-6)

    def groups() -> list[dict[str, Any]]:
        mine = [torch.nn.Parameter(tensor.clone()) for tensor in start]
        return [{"params": mine[:2], "share": 1.0}, {"params": mine[2:], "share": 0.5}]

    ours = part.build(groups())
    peer = torch.optim.AdamW(groups(), lr=0.02, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-6, fused=True)
    for step in range(9):
        gradients = [torch.randn(shape, generator=chance) for shape in shapes[:2 + (step % 3 == 1)]]
        for one in (ours, peer):
            for group in one.param_groups:
                group["lr"] = 0.02 / (step + 1) * group["share"]
            parameters = [p for group in one.param_groups for p in group["params"]]
            for parameter in parameters:
                parameter.grad = None
            for parameter, gradient in zip(parameters, gradients, strict=False):
                parameter.grad = gradient.clone()
            one.step()
        state, theirs = ours.state_dict()["state"], peer.state_dict()["state"]
        assert state.keys() == theirs.keys() and all(state[n].keys() == theirs[n].keys() for n in state)
        assert all(torch.equal(state[n][name], theirs[n][name]) for n in state for name in state[n])
        weights, wanted = ([p.detach().clone() for g in one.param_groups for p in g["params"]] for one in (ours, peer))
        assert all(map(torch.equal, weights, wanted))
        if step == 4:
            ours = part.build(groups())
            for parameter, weight in zip((p for g in ours.param_groups for p in g["params"]), weights, strict=True):
                parameter.data.copy_(weight)
            ours.load_state_dict({"state": {n: {k: v.clone() for k, v in one.items()} for n, one in state.items()}})
    for wrong in ({9: state[0]}, {0: {"step": state[0]["step"]}}):
        with pytest.raises(KeyError):
            ours.load_state_dict({"state": wrong})


def test_a_leaf_is_trained_without_the_import_of_the_compiler_of_torch(tmp_path: Path) -> None:
    root = project(tmp_path)
    code = ("import sys; sys.argv = ['mtrun', 'build', 'specs/sum.toml', '--executor', 'inline']\n"
            "import atexit; atexit.register(lambda: print('torch' in sys.modules, 'torch._dynamo' in sys.modules))\n"
            "from runner.cli import main; main()")
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("True False\n"), done


def test_schedules() -> None:
    assert [Constant().factor(s, 10) for s in (0, 5, 9)] == [1, 1, 1]
    factors = [Linear(warmup=0.2).factor(s, 10) for s in range(10)]
    np.testing.assert_allclose(factors, [0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    assert min(Linear(warmup=0.0).factor(s, 3) for s in range(3)) > 0


def test_the_cosine_is_that_of_transformers_after_its_warm_up() -> None:
    peer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = get_cosine_schedule_with_warmup(peer, 5, 40)
    theirs = []
    for _ in range(40):
        theirs.append(peer.param_groups[0]["lr"])
        peer.step()
        schedule.step()
    mine = [Cosine(warmup=0.125).factor(step, 40) for step in range(40)]
    np.testing.assert_allclose(mine[5:], theirs[5:])
    np.testing.assert_allclose(mine[:5], [0.2, 0.4, 0.6, 0.8, 1.0])  # a step is not lost to a rate of 0
    assert all(0 < Cosine(warmup=warmup).factor(step, 3) <= 1 for warmup in (0.0, 0.9) for step in range(3))


# The rate of each layer ----------------------------------------------------------------------------------------------

DEPTHS = {"heads.sentiment.weight": 0, "encoder.pooler.bias": 0, "encoder.blocks.2.mix.weight": 1,
          "encoder.blocks.1.query.bias": 2, "encoder.blocks.0.contract_norm.weight": 3, "encoder.word.weight": 4,
          "encoder.position.weight": 4, "encoder.segment.weight": 4, "encoder.norm.bias": 4}


def trainer(root: Path, *settings: str) -> Trainer:
    settings = ("encoder.layers=3", "optimizer.lr=0.004", *settings)
    (node,) = Loader(root, "demo", settings).load(root / "specs" / "sum.toml")
    return trainer_of(node.model, node.model.suite.load(root), root, root / "cache")


def rates(run: Trainer) -> dict[str, float]:
    """The rate of each parameter in the optimizer, by name."""
    by_parameter = {id(p): group["lr"] for group in run.optimizer.param_groups for p in group["params"]}
    return {name: by_parameter.pop(id(p)) for name, p in run.parameters.items()} | dict.fromkeys(by_parameter, np.nan)


@pytest.mark.parametrize("combiner", ["sum", "pcgrad"])
def test_lower_layers_have_lower_rates(tmp_path: Path, combiner: str) -> None:
    run = trainer(project(tmp_path), "optimizer.layer_decay=0.5", f"combiner={combiner}", "schedule={type='cosine'}")
    for step in range(3):
        run._step(TrainerCallback())
        found, rate = rates(run), 0.004 * run.model.schedule.factor(step, len(run.batches))
        assert len(found) == len(run.parameters) and len(run.optimizer.param_groups) == 5
        for name, depth in DEPTHS.items():
            assert found[name] == pytest.approx(rate * 0.5**depth), name


def test_a_first_step_of_adam_is_as_long_as_the_rate(tmp_path: Path) -> None:
    """It moves each weight that has a gradient by its rate, whatever the gradient: the rates are those of the steps."""
    run = trainer(project(tmp_path), "optimizer.layer_decay=0.5", "optimizer.eps=1e-30")
    before = {name: p.detach().clone() for name, p in run.parameters.items()}
    run._step(TrainerCallback())
    for name, depth in DEPTHS.items():
        moved = (run.parameters[name].detach() - before[name]).abs().max()
        assert float(moved) == pytest.approx(0.004 * 0.5**depth, rel=1e-3), name


def test_without_decay_there_is_one_group_in_the_old_order(tmp_path: Path) -> None:
    run = trainer(project(tmp_path))
    (group,) = run.optimizer.param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in run.parameters.values()]
    assert "layer_decay" not in run.model.optimizer.canonical()
    assert trainer(tmp_path, "optimizer.layer_decay=0.9").model.optimizer.canonical()["layer_decay"] == 0.9
