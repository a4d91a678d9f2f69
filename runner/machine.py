"""Hardware of this machine: processor, instruction set used by torch, GPUs, and native bf16 matrix products.

Without native bf16, torch emulates it: with correct results, and slower than fp32.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from .errors import clean


def query_gpus(number: str, every: bool = False) -> dict[str, float]:
    """Query a numeric property of the visible GPUs, or of `every` one, from nvidia-smi; by index or UUID."""
    if not shutil.which("nvidia-smi"):
        return {}
    query = ["nvidia-smi", f"--query-gpu=index,uuid,{number}", "--format=csv,noheader,nounits"]
    output = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    rows = [[cell.strip() for cell in line.split(",")] for line in output.splitlines()]
    rows = [row for row in rows if len(row) == 3 and row[2].replace(".", "", 1).isdecimal()]
    visible = None if every else os.environ.get("CUDA_VISIBLE_DEVICES")
    numbers = {name: float(row[2]) for row in rows for name in row[:2]}
    names = [row[0] for row in rows] if visible is None else visible.split(",")
    return {name: numbers[name] for name in names if name in numbers}

CPUINFO = Path("/proc/cpuinfo")

ROCM = Path("/dev/kfd")
"""Exists on Linux where the driver of AMD GPUs for computing (ROCm) is loaded."""

LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Environment variables that limit oneDNN's instruction set on x86; the first that is set counts."""

TOO_LOW = {"sse41", "avx", "avx2", "avx2_vnni", "avx2_vnni_2", "avx512_core", "avx512_core_vnni"}
"""Values of `LIMITS` with which oneDNN emulates bf16; it ignores unknown values
(https://oneapi-src.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html)."""

NATIVE = ("amx_bf16", "avx512_bf16", "bf16")
"""CPU flags of native bf16 products: two of x86, one of ARM. x86's avx_ne_convert only converts."""

CAPABILITY = 8.0
"""Lowest compute capability of NVIDIA GPUs with native bf16 products."""


@cache
def processor() -> str:
    """Return the model name of the processor, or its architecture where that is unknown."""
    names = (" ".join(clean(name).split()) for name in _names())
    return next((name for name in names if name not in ("", "-")), "unknown")


def _names() -> Iterator[str]:
    """Yield candidate names of the processor, best first; Linux on ARM has the name in lscpu only."""
    yield _cpuinfo().get("model name", "")
    is_mac = sys.platform == "darwin"
    yield _output("sysctl", "-n", "machdep.cpu.brand_string") if is_mac else _field(_output("lscpu"))
    yield platform.processor()
    yield platform.machine()


def vendor() -> str:
    """Return the x86 vendor id, such as `GenuineIntel` or `AuthenticAMD`; empty where it is unknown."""
    return _cpuinfo().get("vendor_id", "")


def instruction_set() -> str:
    """Return the instruction set of torch's kernels, and oneDNN's limit where one is set."""
    import torch  # here, since it is slow and only this function needs it

    limit = _limit()
    return torch.backends.cpu.get_cpu_capability() + (f", oneDNN at most {clean(limit)}" if limit else "")


def computes_bf16(device: str) -> tuple[bool, str]:
    """Return whether the device in a leaf's resources computes bf16 products natively, and the reason."""
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return _processor_bf16()
    built = _built_for()
    if built == "hip" and (kind == "cuda" or ROCM.exists()):
        return False, "whether a GPU under ROCm computes bf16 is not known"
    capabilities = _capabilities() if built == "cuda" else []
    if kind == "auto" and not capabilities:
        return _processor_bf16()
    index = int(number) if number.isdecimal() else 0
    if index >= len(capabilities):
        return False, f"the compute capability of `{device}` is not known"
    return capabilities[index] >= CAPABILITY, f"the GPU has compute capability {capabilities[index]}"


def lacks_gpu(device: str) -> bool:
    """Return whether a leaf's device is a GPU that torch cannot use here, as far as shows without importing torch."""
    kind, _, number = device.partition(":")
    if kind != "cuda" or _built_for() == "hip":
        return False
    return _built_for() != "cuda" or int(number or 0) >= len(_capabilities())


def emulated_bf16() -> str:
    """Describe the speed of a step in emulated bf16 relative to fp32 on this processor (docs/performance.md)."""
    if sys.platform == "linux" and "flags" in _cpuinfo():
        has_avx512 = "avx512bw" in _cpuinfo()["flags"].split() and not limited_below_avx512()
        return "two to three times as slow as fp32" if has_avx512 else "about eleven times as slow as fp32"
    return "slower than fp32"


def _processor_bf16() -> tuple[bool, str]:
    """Return whether torch computes bf16 products natively on this processor, and the reason.

    On macOS, torch's wheels come without oneDNN, and so without native bf16 products on any processor.
    """
    if sys.platform != "linux":
        return False, f"torch computes no bf16 products on the processor under {platform.system()}"
    cpuinfo = _cpuinfo()
    flags = {*cpuinfo.get("flags", "").split(), *cpuinfo.get("Features", "").split()}
    flag = next((name for name in NATIVE if name in flags), None)
    if not flag:
        return False, "the processor lacks bf16 instructions and would emulate them"
    if flag != "bf16" and _limit().lower() in TOO_LOW:
        name = next(name for name in LIMITS if os.environ.get(name))
        return False, f"{name}={clean(_limit())} keeps oneDNN from the processor's {flag}"
    return True, f"the processor has {flag}"


def limited_below_avx512() -> bool:
    """Return whether the environment limits oneDNN to instruction sets below AVX-512."""
    return _limit().lower() in TOO_LOW and "avx512" not in _limit().lower()


def _limit() -> str:
    """Return oneDNN's instruction set limit; empty where none is set."""
    return next((limit for name in LIMITS if (limit := os.environ.get(name, ""))), "")


@cache
def _cpuinfo() -> dict[str, str]:
    """Return the fields of the first processor in /proc/cpuinfo; empty on other systems than Linux."""
    fields = dict[str, str]()
    with suppress(OSError), CPUINFO.open(errors="replace") as lines:
        for line in lines:
            if not line.strip() and fields:
                break
            name, _, value = line.partition(":")
            fields[name.strip()] = value.strip()
    return fields


@cache
def _output(*command: str) -> str:
    """Return the standard output of a command; empty where it is missing or fails."""
    with suppress(OSError, subprocess.SubprocessError):
        process = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10, check=True,
                                 env=os.environ | {"LC_ALL": "C"})
        return process.stdout.strip()
    return ""


def _field(text: str, name: str = "Model name") -> str:
    """Return the text after `name:` at the start of a line; empty where there is none."""
    match = re.search(rf"^\s*{re.escape(name)}:(.*)$", text, re.MULTILINE)
    return match[1] if match else ""


@cache
def _capabilities() -> list[float]:
    """Return the compute capabilities of the visible GPUs, in torch's device order.

    nvidia-smi does not list which GPU a MIG instance belongs to: the lowest capability of all GPUs is taken.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES", "").startswith("MIG-"):
        return sorted(query_gpus("compute_cap", every=True).values())[:1]
    return list(query_gpus("compute_cap").values())


@cache
def _built_for() -> str:
    """Return the GPU platform of the installed torch, `cuda`, `hip` or empty, without importing torch."""
    with suppress(OSError, ImportError, ValueError, AttributeError):
        spec = find_spec("torch")
        text = Path(spec.origin).with_name("version.py").read_text() if spec and spec.origin else ""
        return next((kind for kind in ("hip", "cuda") if re.search(rf"^{kind}\b[^=]*= *['\"]", text, re.MULTILINE)), "")
    return ""
