"""Tells how much memory is free on the machine, in a container, or on a GPU."""

from __future__ import annotations

from pathlib import Path


def free_memory(
    device: str = "cpu", proc: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")
) -> float | None:
    """Return the bytes that this process can still allocate; None where the system does not tell.

    Args:
        device: "cpu", or "cuda" for the memory of the GPU.
        proc: The kernel's file on the machine's memory.
        group: The kernel's folder on the container's limits.
    """
    return _free_on_the_gpu() if device == "cuda" else _free_on_the_machine(proc, group)


def _free_on_the_gpu() -> float:
    import torch  # takes seconds, which a machine without a GPU can do without

    cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()  # the unused part of torch's own cache
    return float(torch.cuda.mem_get_info()[0] + cached)


def _free_on_the_machine(proc: Path, group: Path) -> float | None:
    free: list[float] = []
    try:
        lines = dict(line.split(":", 1) for line in _text(proc).splitlines())
        free.append(1024 * float(lines["MemAvailable"].split()[0]))
        limit = float(_text(group / "memory.max"))
        stat = dict(line.split() for line in _text(group / "memory.stat").splitlines())
        used = float(_text(group / "memory.current")) - float(stat["inactive_file"])  # the kernel frees that
        free.append(limit - used)
    except (OSError, ValueError, KeyError):  # not Linux, no container, or one without a limit ("max")
        pass
    return min(free, default=None)


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii")
