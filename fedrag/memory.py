"""How much memory is free: of the machine, of a container, of a GPU."""

from __future__ import annotations

from pathlib import Path


def free_memory(
    device: str = "cpu", proc: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")
) -> float | None:
    """Return the bytes that a process can still have; None where the system does not tell.

    Args:
        device: "cpu", or "cuda" for the memory of the GPU.
        proc: What the machine has.
        group: What a container may have.
    """
    return _free_on_the_gpu() if device == "cuda" else _free_on_the_machine(proc, group)


def _free_on_the_gpu() -> float:
    import torch  # takes seconds, and a machine without a GPU needs none of it

    kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()  # torch's own cache, empty in parts
    return float(torch.cuda.mem_get_info()[0] + kept)


def _free_on_the_machine(proc: Path, group: Path) -> float | None:
    free: list[float] = []
    try:
        lines = dict(line.split(":", 1) for line in proc.read_text().splitlines())
        free.append(1024 * float(lines["MemAvailable"].split()[0]))
        limit = float((group / "memory.max").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used = float((group / "memory.current").read_text()) - float(stat["inactive_file"])  # which is given up at need
        free.append(limit - used)
    except (OSError, ValueError, KeyError):  # no Linux, no container, or one without a limit: "max"
        pass
    return min(free, default=None)
