"""The worked examples of the page on own data run: each file, as it stands there, with the command below it."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from beft_lightning.__main__ import main

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "own_data.md").read_text()
#: Name of a file on the page -> its content.
FILES = dict(re.findall(r"`([a-z]+\.[a-z]+)`[^`\n]*:\n\n```[a-z]+\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("python -m beft_lightning fit") and re.search(r"--data\.train (\S+)", line)
]


def shown_file(command: str) -> str:
    (name,) = re.findall(r"--data\.train (\S+)", command)
    return str(name)


def repeated(name: str, times: int) -> str:
    """A file's content several times over: it is shorter than a fit needs."""
    text = FILES[name]
    if name.endswith(".csv"):
        heading, rows = text.split("\n", 1)
        return f"{heading}\n{rows * times}"
    return "\n".join([text] * times) if name.endswith(".conll") else text * times


@pytest.mark.parametrize("command", COMMANDS, ids=shown_file)
def test_a_worked_example_runs(
    command: str, backbone: str, decoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = shown_file(command)
    (tmp_path / name).write_text(repeated(name, 6), encoding="utf-8")
    options = shlex.split(command)[3:]
    options = [str(ROOT / word) if word.startswith("configs/") else word for word in options]
    monkeypatch.chdir(tmp_path)
    model = decoder if "--data.prompt" in options else backbone
    tiny: dict[str, Any] = {
        "model.backbone": model,
        "model.gguf_file": "null",
        "model.dtype": "float32",
        "data.batch_size": 2,
        "data.max_length": 32,
        "selection.batches": 1,
        "trainer.max_epochs": 1,
        "trainer.default_root_dir": str(tmp_path / "out"),
        "trainer.enable_progress_bar": "false",
    }
    assert main([*options, *(word for key, value in tiny.items() for word in (f"--{key}", str(value)))]) == 0
    (summary,) = (tmp_path / "out").rglob("summary.json")
    metrics = json.loads(summary.read_text())["metrics"]
    assert any(name.startswith("val_") and name != "val_loss" for name in metrics)


def test_every_file_on_the_page_is_learnt_from() -> None:
    assert {shown_file(command) for command in COMMANDS} == {*FILES}
