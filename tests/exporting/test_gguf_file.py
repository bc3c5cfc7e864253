"""A generator becomes a GGUF file through llama.cpp's script; a small one in its place is run in the same way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from safetensors.numpy import load_file

from fedrag.errors import ConfigError
from fedrag.exporting.gguf_file import check_converter
from fedrag.exporting.trained_system import TrainedSystem
from fedrag.exporting.write_export import ExportOptions, export_system

CONVERTER = """
import argparse
from pathlib import Path
from gguf import GGUFWriter
from safetensors.numpy import load_file

parser = argparse.ArgumentParser()
parser.add_argument("model", type=Path)
parser.add_argument("--outfile")
arguments = parser.parse_args()
writer = GGUFWriter(arguments.outfile, "llama")
for name, tensor in load_file(arguments.model / "model.safetensors").items():
    writer.add_tensor(name, tensor)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
"""


def script(folder: Path, text: str) -> Path:
    path = folder / "convert_hf_to_gguf.py"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_script_is_given_the_merged_model_beside_which_the_adapter_stays(system: TrainedSystem, tmp_path: Path):
    out = tmp_path / "out"
    said = export_system(system, out, ExportOptions(gguf=script(tmp_path, CONVERTER)))
    assert f"gguf: {out / 'generator.gguf'}" in said
    assert (out / "generator" / "adapter_model.safetensors").is_file()
    assert sorted(path.name for path in out.iterdir()) == [
        *("README.md", "generator", "generator.gguf", "rag.json", "retriever")
    ]
    assert "`generator.gguf`: the same for llama.cpp" in (out / "README.md").read_text(encoding="utf-8")
    export_system(system, tmp_path / "whole", ExportOptions(merged=True))
    merged = load_file(tmp_path / "whole" / "generator" / "model.safetensors")
    found = {tensor.name: tensor.data for tensor in GGUFReader(out / "generator.gguf").tensors}
    assert set(found) == set(merged)
    for name, tensor in merged.items():
        np.testing.assert_array_equal(found[name], tensor)


def test_what_the_script_says_last_is_the_reason(system: TrainedSystem, tmp_path: Path) -> None:
    failing = script(tmp_path, "raise NotImplementedError('Architecture TinyForCausalLM not supported!')")
    with pytest.raises(ConfigError) as refused:
        export_system(system, tmp_path / "out", ExportOptions(gguf=failing))
    assert str(refused.value) == (
        f"--gguf {failing}: the conversion of fedrag/tiny-causal failed: "
        "NotImplementedError: Architecture TinyForCausalLM not supported!"
    )
    assert sorted(tmp_path.iterdir()) == [failing]


def test_what_the_script_needs_and_is_not_installed_is_named(system: TrainedSystem, tmp_path: Path) -> None:
    failing = script(tmp_path, "import no_such_package.inner")
    with pytest.raises(ConfigError, match=r"failed: the script needs no_such_package: pip install no_such_package$"):
        export_system(system, tmp_path / "out", ExportOptions(gguf=failing))


def test_what_is_not_the_script_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no converter is kept on PyPI"):
        check_converter(tmp_path)
