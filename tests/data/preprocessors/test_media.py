"""Batches of images and sounds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from beft_lightning.data.media.task import AudioTask, ImageTask
from beft_lightning.data.preprocessors import PREPROCESSORS, EncodingOptions
from beft_lightning.errors import DataError
from beft_lightning.processors import make_processor
from tests.media import SPEECH, VISION, picture, tone

IMAGES = ImageTask(name="sides", column="image", labels=("left", "right"), metrics=("accuracy",))
SOUNDS = AudioTask(name="pitches", column="audio", labels=("low", "high"), metrics=("accuracy",), max_seconds=0.2)


def preprocessor(task: Any, model_type: str, folder: Path) -> Any:
    AutoConfig.for_model(model_type, **(VISION | SPEECH)[model_type]).save_pretrained(folder)
    return PREPROCESSORS[task.kind](task, make_processor(task.kind, str(folder)), EncodingOptions(128))


def test_images_are_read_when_their_batch_is_made(tmp_path: Path) -> None:
    encoder = preprocessor(IMAGES, "vit", tmp_path)
    picture(1, 0).save(tmp_path / "a.png")
    examples = IMAGES.parse([("t row 1", {"image": str(tmp_path / "a.png"), "label": "right"})], "t")
    (features,) = encoder.encode(examples)
    assert (encoder.length(features), encoder.positions(features)) == (1, 0)
    before = encoder.collate_training([features])
    assert before["labels"].tolist() == [1]
    picture(0, 0).save(tmp_path / "a.png")
    assert not before["pixel_values"].equal(encoder.collate_evaluation([features])["pixel_values"])
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match="t row 1: not readable as an image"):
        encoder.collate_training([features])


@pytest.mark.parametrize(("model_type", "shape", "cost"), [("hubert", (2, 3_200), 3_200), ("whisper", (2, 80, 100), 1)])
def test_sounds_are_cut_and_filled_up(model_type: str, shape: tuple[int, ...], cost: int, tmp_path: Path) -> None:
    encoder = preprocessor(SOUNDS, model_type, tmp_path)
    rows = [(f"row {i}", {"audio": tone(i, i, seconds)}) for i, seconds in enumerate((0.1, 0.3))]
    examples = [example for where, row in rows for _, example in SOUNDS.parse_input(row, where)]
    features = encoder.encode(SOUNDS.numbered(examples))
    assert encoder.length(features[1]) == cost
    batch = encoder.collate_evaluation(features)
    assert "labels" not in batch
    assert batch["id"].tolist() == [0, 1]
    (inputs,) = (value for name, value in batch.items() if name.startswith("input_"))
    assert inputs.shape == shape


def test_a_record_of_a_task_is_restored() -> None:
    for task in (IMAGES, SOUNDS):
        restored = type(task).from_dict(task.to_dict(), ())
        assert restored == replace(task, metrics=())
