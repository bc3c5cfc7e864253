"""The notebooks that ship run from their first cell to the last, as a person runs them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "simulations" / "notebooks").glob("*.ipynb"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ipykernel") is None, reason="make integrations installs it"),
]


@pytest.mark.usefixtures("tiny_home", "one_cpu")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_progress_and_the_table_of_its_run(path: Path, tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=500, kernel_name="python3", resources=where).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("run folder: runs/from-python-1" in output.get("text", "") for output in outputs)
    [page] = [data["text/html"] for output in outputs if "text/html" in (data := output.get("data", {}))]
    assert "<table>" in page
    assert "<svg" in page
