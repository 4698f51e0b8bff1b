"""The notebooks run from a fresh kernel, are small, and are stored with their outputs."""

import ast
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture
def cells(path) -> list:
    return nbformat.read(path, as_version=4).cells


def code_of(cells) -> list:
    return [cell for cell in cells if cell.cell_type == "code"]


def outputs_of(cells) -> list:
    return [output for cell in code_of(cells) for output in cell.outputs]


def without_magics(source: str) -> str:
    return "\n".join("" if line.startswith("%") else line for line in source.splitlines())


def test_there_are_notebooks():
    assert NOTEBOOKS


def test_notebook_is_small(cells):
    assert len(cells) <= 15
    for cell in code_of(cells):
        for node in ast.walk(ast.parse(without_magics(cell.source))):
            if isinstance(node, FUNCTIONS):
                assert node.end_lineno - node.lineno < 10, node.name


def test_notebook_is_stored_with_outputs(cells):
    counts = [cell.execution_count for cell in code_of(cells)]
    assert counts == list(range(1, len(counts) + 1))
    outputs = outputs_of(cells)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any(output.get("name") == "stdout" for output in outputs)


def test_stored_outputs_are_clean(cells):
    for output in outputs_of(cells):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
        text = output.get("text", "") + output.get("data", {}).get("text/plain", "")
        assert "Traceback" not in text
        assert not any(root in text for root in ("/home/", "/work/", "/tmp/", "/Users/"))


@pytest.mark.slow
def test_notebook_runs(path):
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=180, resources={"metadata": {"path": str(path.parent)}}).execute()
    assert not [output for output in outputs_of(notebook.cells) if output.output_type == "error"]
