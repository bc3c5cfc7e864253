"""What is free: the machine's or the container's, whichever is less."""

from __future__ import annotations

from pathlib import Path

from fedrag.memory import free_memory


def test_free_memory_is_the_machine_s_or_the_container_s_whichever_is_less(tmp_path: Path):
    proc = tmp_path / "meminfo"
    assert free_memory("cpu", proc, tmp_path) is None
    proc.write_text("MemTotal:       16000000 kB\nMemAvailable:    8000000 kB\n")
    assert free_memory("cpu", proc, tmp_path) == 8_192_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory("cpu", proc, tmp_path) == 8_192_000_000
    (tmp_path / "memory.max").write_text("3000000000\n")
    (tmp_path / "memory.current").write_text("2500000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 1500000000\n")
    assert free_memory("cpu", proc, tmp_path) == 2_000_000_000
