"""The file in an export that says what the model was trained on."""

import json
from pathlib import Path
from typing import Any

import pytest

from beft_lightning.errors import CheckpointError
from beft_lightning.export.task_file import TASK_FILE, infer_record, read_record, write_record
from tests.tiny import save_backbone

RECORD: dict[str, Any] = {
    "gguf_file": None,
    "dtype": "float32",
    "labels": ["böse", "gut"],
    "task": {"name": "moods", "kind": "classification", "max_length": 32},
}


def test_a_record_is_read_as_it_was_written_with_the_precision_of_the_export(tmp_path: Path) -> None:
    write_record(tmp_path, {**RECORD, "backbone": "elsewhere", "tune": "value"}, "bfloat16")
    assert read_record(tmp_path) == {**RECORD, "dtype": "bfloat16"}
    assert "böse" in (tmp_path / TASK_FILE).read_text(encoding="utf-8")


def test_a_file_says_nothing_of_the_base(tmp_path: Path) -> None:
    others = {"backbone": "elsewhere", "auto_class": "pipeline", "random_init": True}
    (tmp_path / TASK_FILE).write_text(json.dumps({**RECORD, **others}), encoding="utf-8")
    assert read_record(tmp_path) == RECORD


def test_a_record_without_a_task_leaves_no_file(tmp_path: Path) -> None:
    write_record(tmp_path, {name: RECORD[name] for name in ("dtype", "labels")}, "float32")
    assert list(tmp_path.iterdir()) == []
    assert read_record(tmp_path) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "beft_task.json: not JSON .* Export the checkpoint anew"),
        ("[]", "beft_task.json: no valid 'gguf_file'"),
        (json.dumps({name: value for name, value in RECORD.items() if name != "task"}), "no valid 'task'"),
        (json.dumps({**RECORD, "labels": "gut"}), "no valid 'labels'"),
        (json.dumps({**RECORD, "dtype": None}), "no valid 'dtype'"),
        (json.dumps({**RECORD, "task": {}}), "no valid 'name' of the 'task'"),
    ],
)
def test_a_malformed_file(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / TASK_FILE).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        read_record(tmp_path)


def test_the_record_of_a_classifier_is_inferred(tmp_path: Path) -> None:
    save_backbone(tmp_path / "moods", headed=True, id2label={0: "bad", 1: "good", 2: "fine"})
    record = infer_record(tmp_path / "moods")
    assert record["labels"] == ["bad", "good", "fine"]
    assert record["dtype"] == "float32"
    assert record["task"] == {"name": "moods", "kind": "classification", "max_length": 128, "text": ["text"]}


def test_a_model_of_one_output_scores(tmp_path: Path) -> None:
    save_backbone(tmp_path, headed=True, num_labels=1)
    record = infer_record(tmp_path)
    assert (record["labels"], record["task"]["kind"]) == ([], "regression")


@pytest.mark.parametrize(
    "options",
    [{"headed": False}, {"headed": True, "problem_type": "multi_label_classification"}],
)
def test_a_model_that_does_not_tell_its_task(options: dict[str, Any], tmp_path: Path) -> None:
    save_backbone(tmp_path, **options)
    with pytest.raises(CheckpointError, match="no beft_task.json, which says what the model was trained on"):
        infer_record(tmp_path)
