"""The device and the number format in which models compute."""

from __future__ import annotations

import os

import torch


def best_device() -> str:
    """Return the device on which models run: a GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def computing_dtype(name: str, device: str) -> torch.dtype:
    """Return the number format in which frozen weights compute.

    With "auto" it is bfloat16 on hardware that computes in it, else float32; "nf4" computes as "auto" does.
    """
    if name not in ("auto", "nf4"):
        return {"bfloat16": torch.bfloat16, "float32": torch.float32}[name]
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if _cpu_computes_bfloat16() else torch.float32


def number_format(name: str, device: str) -> str:
    """Return the name of the format of frozen weights and, if it differs, of that in which they compute."""
    dtype = str(computing_dtype(name, device)).removeprefix("torch.")
    return f"nf4 ({dtype})" if name == "nf4" else dtype


def _cpu_computes_bfloat16() -> bool:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            return any(line.startswith("flags") and "avx512_bf16" in line for line in file)
    except OSError:
        return False


def cpu_count() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
