"""Matrix products by either library against fp64, and the choice between the two."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from runner import machine
from runner.parts.encoders.bert import products


def near(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Tell whether fp32 sums are as right as fp32 can be."""
    return found.dtype == torch.float32 and bool((found - wanted).abs().max() <= 1e-5 * wanted.abs().max())


@pytest.mark.parametrize("chosen", [True, False])
@pytest.mark.parametrize("tasks", [(300,), (33, 1, 266)])
@pytest.mark.parametrize(("inputs", "outputs"), [(256, 300), (8, 5)])
def test_products_are_those_of_fp64(monkeypatch: pytest.MonkeyPatch, chosen: bool, tasks: tuple[int, ...], inputs: int,
                                    outputs: int) -> None:
    if chosen and not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(products, "by_onednn", lambda: chosen)
    torch.manual_seed(0)
    x, w, b = torch.randn(300, inputs), torch.randn(outputs, inputs), torch.randn(outputs)
    grad = torch.randn(300, outputs)
    assert near(products.linear(x, w, b), x.double() @ w.double().T + b)
    assert near(products.linear(grad, w.t()), grad.double() @ w.double())
    found = products.weight_gradients(grad, x, tasks)
    assert found.shape == (len(tasks), outputs, inputs)
    for one, g, rows in zip(found, grad.split(tasks), x.split(tasks), strict=True):
        assert near(one, g.double().T @ rows.double())


@pytest.mark.parametrize(("vendor", "kernels", "limit", "chosen"), [
    ("AuthenticAMD", "AVX512", "", True), ("AuthenticAMD", "AVX512", "AVX512_CORE", True),
    ("AuthenticAMD", "AVX512", "AVX2", False), ("AuthenticAMD", "AVX2", "", False),
    ("GenuineIntel", "AVX512", "", False), ("", "AVX512", "", False)])
def test_onednn_is_for_processors_that_mkl_slights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vendor: str,
                                                   kernels: str, limit: str, chosen: bool) -> None:
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()):
        pytest.skip("this torch has but one library")
    (tmp_path / "cpuinfo").write_text(f"vendor_id : {vendor}\n")
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", limit)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: kernels)
    machine._cpuinfo.cache_clear()
    products.by_onednn.cache_clear()
    assert products.by_onednn() is chosen
    machine._cpuinfo.cache_clear()
    products.by_onednn.cache_clear()
