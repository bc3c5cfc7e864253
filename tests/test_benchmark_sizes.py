import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parent / "benchmarks"

# As the model cards on the hub give them, or the sums of the tensors in the published files.
PUBLISHED = {"Qwen2.5-0.5B": 494_032_768, "Llama-3.2-1B": 1_235_814_400, "Qwen2.5-7B": 7_615_616_512}


def in_benchmarks(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_shapes_have_the_published_numbers_of_weights():
    told = in_benchmarks(
        "from sizes import SIZES, empty_model\n"
        "for size in SIZES: print(size, sum(p.numel() for p in empty_model(size).parameters()))"
    )
    assert {size: int(count) for size, count in map(str.split, told.splitlines())} == PUBLISHED


def test_a_size_that_there_is_not_is_refused_at_once():
    done = subprocess.run(
        [sys.executable, "at_size.py", "--device", "cpu", "--sizes", "Qwen3"],
        cwd=BENCHMARKS,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "there is no Qwen3; there are Qwen2.5-0.5B, Llama-3.2-1B, Qwen2.5-7B" in done.stderr
