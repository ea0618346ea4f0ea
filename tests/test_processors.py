"""What prepares inputs: from the backbone's folder, or made from its config."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoConfig, WhisperConfig

from beft_lightning.errors import BackboneError
from beft_lightning.processors import load_processor, make_processor
from tests.media import RATE, SPEECH, VISION, tone


def save_config(folder: Path, model_type: str, **options: Any) -> str:
    AutoConfig.for_model(model_type, **{**(VISION | SPEECH)[model_type], **options}).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("model_type", VISION)
def test_images_get_the_size_and_the_channels_of_the_config(model_type: str, tmp_path: Path) -> None:
    picture = np.zeros((20, 30, 3), np.uint8)
    made = make_processor("image_classification", save_config(tmp_path, model_type))
    assert made([picture], return_tensors="pt")["pixel_values"].shape == (1, 3, 16, 16)
    made.save_pretrained(tmp_path)
    assert load_processor("image_classification", str(tmp_path)).to_dict() == made.to_dict()


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    made = make_processor("image_classification", save_config(tmp_path, "vit", num_channels=1))
    values = made([np.full((8, 8, 1), 255, np.uint8)], return_tensors="pt", input_data_format="channels_last")
    assert values["pixel_values"].shape == (1, 1, 16, 16)
    assert values["pixel_values"].flatten().tolist() == [1.0] * 256


@pytest.mark.parametrize(("model_type", "mask"), [("wav2vec2", False), ("hubert", True)])
def test_models_with_layer_norms_get_a_mask(model_type: str, mask: bool, tmp_path: Path) -> None:
    made = make_processor("audio_classification", save_config(tmp_path, model_type))
    batch = made([tone(0, 0)], sampling_rate=RATE, return_tensors="pt")
    assert ("attention_mask" in batch) == mask


def test_spectrograms_have_the_length_of_whispers_positions(tmp_path: Path) -> None:
    made = make_processor("audio_classification", save_config(tmp_path, "whisper"))
    assert made([tone(0, 0)], sampling_rate=RATE, return_tensors="pt")["input_features"].shape == (1, 80, 100)
    WhisperConfig(max_source_positions=33).save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="max_source_positions 33 are no whole number of seconds"):
        make_processor("audio_classification", str(tmp_path))


def test_a_type_without_a_processor(backbone: str) -> None:
    with pytest.raises(BackboneError, match="transformers has no processor for images of this type"):
        make_processor("image_classification", backbone)
    with pytest.raises(BackboneError, match="which says how sounds are prepared .* with random_init it is not needed"):
        load_processor("audio_classification", backbone)
