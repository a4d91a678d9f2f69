"""What machine this is: its processor, what torch uses of it, and whether it computes bf16 products natively.

Where it does not, torch emulates them: right, and slower than fp32.
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


def queried(number: str, every: bool = False) -> dict[str, float]:
    """Return a number that nvidia-smi tells of each GPU that may be used, or of `every` one, by the GPU's name."""
    if not shutil.which("nvidia-smi"):
        return {}
    query = ["nvidia-smi", f"--query-gpu=index,uuid,{number}", "--format=csv,noheader,nounits"]
    said = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    rows = [[cell.strip() for cell in line.split(",")] for line in said.splitlines()]
    rows = [row for row in rows if len(row) == 3 and row[2].replace(".", "", 1).isdecimal()]
    visible = None if every else os.environ.get("CUDA_VISIBLE_DEVICES")
    numbers = {name: float(row[2]) for row in rows for name in row[:2]}
    names = [row[0] for row in rows] if visible is None else visible.split(",")
    return {name: numbers[name] for name in names if name in numbers}

CPUINFO = Path("/proc/cpuinfo")

ROCM = Path("/dev/kfd")
"""There where Linux drives an AMD GPU that computes."""

LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Environment variables that limit what oneDNN, torch's library for bf16 products, uses on x86; the first counts."""

TOO_LOW = {"sse41", "avx", "avx2", "avx2_vnni", "avx2_vnni_2", "avx512_core", "avx512_core_vnni"}
"""Limits with which oneDNN emulates bf16; of other words it takes no notice
(https://oneapi-src.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html)."""

NATIVE = ("amx_bf16", "avx512_bf16", "bf16")
"""Flags of processors with bf16 products: two of x86, one of ARM. x86's avx_ne_convert only converts."""

CAPABILITY = 8.0
"""From which compute capability on NVIDIA's GPUs have bf16 products."""


@cache
def processor() -> str:
    """Return the name of the processor's model, or the architecture where the system tells no more."""
    return next((name for said in _names() if (name := " ".join(clean(said).split())) not in ("", "-")), "unknown")


def _names() -> Iterator[str]:
    """Yield what the system calls the processor, the best first; ARM's Linux leaves the name to lscpu."""
    yield _cpuinfo().get("model name", "")
    yield _said("sysctl", "-n", "machdep.cpu.brand_string") if sys.platform == "darwin" else _field(_said("lscpu"))
    yield platform.processor()
    yield platform.machine()


def vendor() -> str:
    """Return who made the processor, as x86 has it: `GenuineIntel`, `AuthenticAMD`; nothing where that is not known."""
    return _cpuinfo().get("vendor_id", "")


def instruction_set() -> str:
    """Return the instruction set that torch's kernels use, and oneDNN's limit where one is set."""
    import torch  # here, since nothing else of this module needs it

    limit = _limit()
    return torch.backends.cpu.get_cpu_capability() + (f", oneDNN at most {clean(limit)}" if limit else "")


def computes_bf16(device: str) -> tuple[bool, str]:
    """Tell whether bf16 products are computed natively on the device that a leaf's resources name, and why."""
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return _processor_bf16()
    built = _built_for()
    if built == "hip" and (kind == "cuda" or ROCM.exists()):
        return False, "whether a GPU under ROCm computes bf16 is not known"
    found = _capabilities() if built == "cuda" else []
    if kind == "auto" and not found:
        return _processor_bf16()
    which = int(number) if number.isdecimal() else 0
    if which >= len(found):
        return False, f"the compute capability of `{device}` is not known"
    return found[which] >= CAPABILITY, f"the GPU has compute capability {found[which]}"


def emulated_bf16() -> str:
    """Return how a step in emulated bf16 compares with one in fp32 on such a processor (docs/performance.md)."""
    if sys.platform == "linux" and "flags" in _cpuinfo():
        has_avx512 = "avx512bw" in _cpuinfo()["flags"].split() and not limited_below_avx512()
        return "two to three times as slow as fp32" if has_avx512 else "about eleven times as slow as fp32"
    return "slower than fp32"


def _processor_bf16() -> tuple[bool, str]:
    """Tell whether torch computes bf16 products natively on this processor, and why.

    On macOS, torch's wheels come without oneDNN, and so without bf16 products whatever the processor has.
    """
    if sys.platform != "linux":
        return False, f"torch computes no bf16 products on the processor under {platform.system()}"
    told = _cpuinfo()
    flags = {*told.get("flags", "").split(), *told.get("Features", "").split()}
    flag = next((one for one in NATIVE if one in flags), None)
    if not flag:
        return False, "the processor lacks bf16 instructions and would emulate them"
    if flag != "bf16" and _limit().lower() in TOO_LOW:
        name = next(name for name in LIMITS if os.environ.get(name))
        return False, f"{name}={clean(_limit())} keeps oneDNN from the processor's {flag}"
    return True, f"the processor has {flag}"


def limited_below_avx512() -> bool:
    """Tell whether the environment keeps oneDNN from AVX-512."""
    return _limit().lower() in TOO_LOW and "avx512" not in _limit().lower()


def _limit() -> str:
    """Return oneDNN's limit, or nothing where none is set."""
    return next((said for name in LIMITS if (said := os.environ.get(name, ""))), "")


@cache
def _cpuinfo() -> dict[str, str]:
    """Return what Linux says of the first processor; nothing elsewhere."""
    found = dict[str, str]()
    with suppress(OSError), CPUINFO.open(errors="replace") as lines:
        for line in lines:
            if not line.strip() and found:
                break
            name, _, said = line.partition(":")
            found[name.strip()] = said.strip()
    return found


@cache
def _said(*command: str) -> str:
    """Return what a command prints; nothing where there is no such command, or where it fails."""
    with suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10, check=True,
                              env=os.environ | {"LC_ALL": "C"})
        return said.stdout.strip()
    return ""


def _field(text: str, name: str = "Model name") -> str:
    """Return what stands behind `name:` in a text."""
    found = re.search(rf"^\s*{re.escape(name)}:(.*)$", text, re.MULTILINE)
    return found[1] if found else ""


@cache
def _capabilities() -> list[float]:
    """Return the compute capabilities of the GPUs that may be used, in the order in which torch counts them.

    Of a part of a GPU (MIG) nvidia-smi does not tell whose it is; it is counted as of the weakest.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES", "").startswith("MIG-"):
        return sorted(queried("compute_cap", every=True).values())[:1]
    return list(queried("compute_cap").values())


@cache
def _built_for() -> str:
    """Return which GPUs the installed torch was built for: `cuda`, `hip` or none; torch is not imported."""
    with suppress(OSError, ImportError, ValueError, AttributeError):
        spec = find_spec("torch")
        text = Path(spec.origin).with_name("version.py").read_text() if spec and spec.origin else ""
        return next((kind for kind in ("hip", "cuda") if re.search(rf"^{kind}\b[^=]*= *['\"]", text, re.MULTILINE)), "")
    return ""
