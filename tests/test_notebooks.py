"""Every notebook runs from top to bottom, and holds what it printed and drew."""

import json
import re
from pathlib import Path
from typing import Any

import matplotlib
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def code_cells(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run a notebook's cells with a single epoch of everything, and return its names."""
    matplotlib.use("agg")
    monkeypatch.chdir(folder)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    names: dict[str, Any] = {}
    (path,) = (path for path in NOTEBOOKS if path.stem == name)
    for cell in code_cells(path):
        source = re.sub(r"^(\w*EPOCHS) = \d+$", r"\1 = 1", "".join(cell["source"]), flags=re.MULTILINE)
        exec(compile(source, path.name, "exec"), names)
    return names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_was_run_in_order_and_shows_a_picture_and_no_place_of_a_machine(path: Path) -> None:
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == [*range(1, 1 + len(cells))]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not any(output["output_type"] == "error" or output.get("name") == "stderr" for output in outputs)
    shown = [data for output in outputs for data in output.get("data", {}).items()]
    assert any(kind == "image/png" for kind, _ in shown)
    texts = ["".join(output.get("text", "")) for output in outputs]
    texts += ["".join(value) for kind, value in shown if kind.startswith("text/")]
    assert not [text for text in texts if re.search(r"/(home|root|tmp|work|usr|Users|var)\b|https?://", text)]


def test_tutorial(minilm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run("tutorial", tmp_path, monkeypatch)
    assert names["table"]["text"].is_unique
    assert names["selection"].scores.terms["key"].inert
    assert names["trained"] == 6 * 384 + 384 + 2 * 384 + 2  # a term, the pooler's bias and the classifier
    assert [row["label"] for row in names["again"]] == [row["label"] for row in names["model"].predict(names["new"])]


def test_your_project(minilm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run("your_project", tmp_path, monkeypatch)
    ((term,), trained) = names["selection"].selected, names["selection"].trained
    assert len(trained) == 6 + 2
    assert all(f".{term}.bias" in name or name.startswith("score.") for name in trained)
    values, loaded = names["module"].state_dict(), names["fresh"].state_dict()
    assert all(values[name].equal(loaded[name]) for name in trained)
    assert not {text for text, _ in names["train"]} & {text for text, _ in names["held_out"]}


def test_beyond_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run("beyond_text", tmp_path, monkeypatch)
    assert set(names["known"].task.labels) == {*"01234"}
    assert names["biased"].task.labels == (*"56789",)
    (term,) = names["selection"].selected
    assert term in ("query", "value")
    head = 64 * 5 + 5
    assert names["results"]["parameters"].tolist()[:2] == [4 * 64 + head, head]
    assert len(names["parts"]["learn"]) == 50
