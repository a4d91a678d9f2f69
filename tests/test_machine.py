"""What machine this is: names, instruction sets and bf16, from made-up systems."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner import machine
from runner.machine import computes_bf16, instruction_set, processor

Stands = Callable[[str], None]

X86 = "processor\t: 0\nvendor_id\t: Some\nmodel name\t: {name}\nflags\t\t: fpu sse2 {flags} fma\n\n" \
      "processor\t: 1\nmodel name\t: Another\nflags\t\t: avx512_bf16\n"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd {flags}\nCPU implementer\t: 0x41\n\n"


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stand on Linux with a torch for NVIDIA's GPUs, and none of these."""
    for name in (*machine.LIMITS, "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    forget()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(machine, "ROCM", tmp_path / "kfd")
    monkeypatch.setattr(machine, "_built_for", lambda: "cuda")
    monkeypatch.setattr("sys.platform", "linux")
    yield
    forget()


def forget() -> None:
    for known in (machine.processor, machine._cpuinfo, machine._output, machine._capabilities):
        known.cache_clear()


@pytest.fixture
def stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stands:
    """Return what sets the text of /proc/cpuinfo."""

    def stand(text: str) -> None:
        forget()
        (tmp_path / "cpuinfo").write_text(text)
        monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")

    return stand


def command(folder: Path, name: str, prints: str, code: int = 0) -> None:
    """Put a command into PATH that prints a text."""
    (folder / name).write_text(f"#!/bin/sh\n/bin/cat <<'END'\n{prints}\nEND\nexit {code}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(("said", "name"), [
    ("AMD EPYC 9B14", "AMD EPYC 9B14"),
    ("Intel(R) Xeon(R)  Platinum 8481C CPU @ 2.70GHz   ", "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz"),
    ("\x1b[31mRed\u202e", "\ufffd[31mRed\ufffd")])
def test_the_processor_has_the_name_of_its_first_core(stands: Stands, said: str, name: str) -> None:
    stands(X86.format(name=said, flags=""))
    assert processor() == name


def test_a_processor_of_arm_has_the_name_that_lscpu_gives_it(stands: Stands, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    stands(ARM.format(flags="bf16"))
    command(tmp_path, "lscpu", "Architecture:   aarch64\n  Model name:   Neoverse-V2\n    Model:  1")
    assert processor() == "Neoverse-V2"
    forget()
    command(tmp_path, "lscpu", "Model name:  -")
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert processor() == "aarch64"
    forget()
    command(tmp_path, "lscpu", "Model name: Broken", code=1)
    assert processor() == "aarch64"


def test_macos_says_its_processor_by_sysctl_and_has_no_bf16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "none")
    monkeypatch.setattr("sys.platform", "darwin")
    command(tmp_path, "sysctl", "Apple M2 Pro")
    assert processor() == "Apple M2 Pro"
    assert not computes_bf16("auto")[0]


@pytest.mark.parametrize(("text", "native", "why"), [
    (X86.format(name="a", flags="avx512f avx512_bf16"), True, "the processor has avx512_bf16"),
    (X86.format(name="a", flags="avx512_bf16 amx_bf16"), True, "the processor has amx_bf16"),
    (X86.format(name="a", flags="avx512f avx512_vnni"), False, "lacks bf16"),
    (X86.format(name="a", flags="avx2 avx_ne_convert"), False, "lacks bf16"),
    (ARM.format(flags="bf16 sve"), True, "the processor has bf16"),
    (ARM.format(flags="sve"), False, "lacks bf16"),
    ("", False, "lacks bf16")])
@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_bf16_of_a_processor_is_a_flag(stands: Stands, text: str, native: bool, why: str, device: str) -> None:
    stands(text)
    said = computes_bf16(device)
    assert said[0] is native and why in said[1]


@pytest.mark.parametrize(("limits", "native"), [
    ({"DNNL_MAX_CPU_ISA": "AVX2"}, False), ({"ONEDNN_MAX_CPU_ISA": "avx512_core"}, False),
    ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}, False), ({"DNNL_MAX_CPU_ISA": "AVX512_CORE_BF16"}, True),
    ({"DNNL_MAX_CPU_ISA": "AVX512_CORE_AMX"}, True), ({"DNNL_MAX_CPU_ISA": "AVX10_1_512"}, True),
    ({"DNNL_MAX_CPU_ISA": "nonsense"}, True), ({"DNNL_MAX_CPU_ISA": ""}, True),
    ({"ONEDNN_MAX_CPU_ISA": "ALL", "DNNL_MAX_CPU_ISA": "AVX2"}, True),
    ({"ONEDNN_MAX_CPU_ISA": "", "DNNL_MAX_CPU_ISA": "AVX2"}, False)])
def test_a_limit_of_onednn_takes_bf16_away(stands: Stands, monkeypatch: pytest.MonkeyPatch, limits: dict[str, str],
                                           native: bool) -> None:
    stands(X86.format(name="a", flags="avx512_bf16"))
    for name, value in limits.items():
        monkeypatch.setenv(name, value)
    said = computes_bf16("cpu")
    assert said[0] is native and (native or "AVX2" in said[1] or "VNNI" in said[1] or "avx512_core" in said[1])
    stands(ARM.format(flags="bf16"))
    assert computes_bf16("cpu")[0]


@pytest.mark.parametrize(("visible", "device", "native", "why"), [
    (None, "auto", True, "9.0"), (None, "cuda", True, "9.0"), (None, "cuda:1", False, "7.5"),
    (None, "cpu", False, "processor"), ("1", "auto", False, "7.5"), ("GPU-b,0", "cuda:1", True, "9.0"),
    (None, "cuda:2", False, "not known"),
    ("", "auto", False, "processor"), ("", "cuda", False, "not known"), ("MIG-x", "auto", False, "7.5")])
def test_bf16_of_a_gpu_is_its_compute_capability(stands: Stands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                 visible: str | None, device: str, native: bool, why: str) -> None:
    stands(X86.format(name="a", flags=""))
    command(tmp_path, "nvidia-smi", "0, GPU-a, 9.0\n1, GPU-b, 7.5\n2, GPU-c, [N/A]")
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    said = computes_bf16(device)
    assert said[0] is native and why in said[1]


def test_a_torch_without_gpus_leaves_them_alone_and_rocm_is_not_trusted(stands: Stands, tmp_path: Path,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    stands(X86.format(name="a", flags="avx512_bf16"))
    command(tmp_path, "nvidia-smi", "0, GPU-a, 7.5")
    monkeypatch.setattr(machine, "_built_for", lambda: "")
    assert computes_bf16("auto") == (True, "the processor has avx512_bf16") and not computes_bf16("cuda")[0]
    monkeypatch.setattr(machine, "_built_for", lambda: "hip")
    assert computes_bf16("auto")[0]
    machine.ROCM.touch()
    assert not computes_bf16("auto")[0] and "ROCm" in computes_bf16("cuda")[1]


@pytest.mark.parametrize(("cuda", "hip", "expected"), [
    ("Optional[str] = '12.8'", "Optional[str] = None", "cuda"),
    ("Optional[str] = None", "Optional[str] = '6.4.1'", "hip"),
    ("Optional[str] = None", "Optional[str] = None", "")])
def test_what_torch_was_built_for_is_read_and_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda: str,
                                                           hip: str, expected: str) -> None:
    monkeypatch.undo()
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise RuntimeError")
    (tmp_path / "torch" / "version.py").write_text(f"cuda: {cuda}\ngit_version = 'a'\nhip: {hip}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    machine._built_for.cache_clear()
    assert machine._built_for() == expected
    machine._built_for.cache_clear()


def test_the_instruction_set_is_torchs_with_onednns_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    assert instruction_set() == torch.backends.cpu.get_cpu_capability()
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX2")
    assert instruction_set() == f"{torch.backends.cpu.get_cpu_capability()}, oneDNN at most AVX2"


def test_a_device_that_is_a_processor_is_told_by_its_name() -> None:
    import torch

    from runner.worker.worker import device_name

    assert device_name(torch.device("cpu"), 2) == f"2 x cpu ({processor()}, {instruction_set()})"


def test_this_machine_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    forget()
    assert processor() not in ("", "unknown") and os.linesep not in processor()
