"""Tiny vision and speech models, images and sounds that tests make for themselves."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import (
    AutoConfig,
    AutoModelForAudioClassification,
    AutoModelForImageClassification,
    PreTrainedModel,
)

from beft_lightning.processors import make_processor

_TRANSFORMER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
_VISION = {**_TRANSFORMER, "image_size": 16, "patch_size": 8}
_TOWERS = {
    "vision_config": _VISION,
    "text_config": {**_TRANSFORMER, "vocab_size": 8, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1},
}
_SPEECH = {
    **_TRANSFORMER,
    "conv_dim": [8, 8],
    "conv_kernel": [40, 8],
    "conv_stride": [20, 8],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 8,
}
_WHISPER = {
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 24,
    "max_source_positions": 50,
    "vocab_size": 8,
    "pad_token_id": 0,
    "classifier_proj_size": 8,
}
_SWIN = {
    "image_size": 16,
    "patch_size": 2,
    "embed_dim": 8,
    "depths": [1, 1],
    "num_heads": [2, 2],
    "window_size": 4,
}
#: Type of vision model -> its tiny configuration.
VISION: dict[str, dict[str, Any]] = {
    "vit": _VISION,
    "dinov2": _VISION,
    "siglip": _TOWERS,
    "clip": _TOWERS,
    "swin": _SWIN,
}
#: Type of speech model -> its tiny configuration.
SPEECH: dict[str, dict[str, Any]] = {
    "wav2vec2": _SPEECH,
    "hubert": {**_SPEECH, "feat_extract_norm": "layer"},
    "whisper": _WHISPER,
}
RATE = 16_000


def save_media_backbone(folder: Path, model_type: str) -> str:
    """Save a tiny vision or speech model without a head, as published models are, and its processor."""
    kind = "image" if model_type in VISION else "audio"
    config = AutoConfig.for_model(model_type, **{**VISION, **SPEECH}[model_type])
    auto_class: Any = AutoModelForImageClassification if kind == "image" else AutoModelForAudioClassification
    torch.manual_seed(0)
    model: PreTrainedModel = auto_class.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.02)
    base = model.base_model
    assert isinstance(base, PreTrainedModel)
    base.save_pretrained(folder)
    make_processor(f"{kind}_classification", str(folder)).save_pretrained(folder)
    return str(folder)


def picture(label: int, seed: int, size: int = 20) -> Image.Image:
    """A picture of noise that is brighter on the left (0) or on the right (1)."""
    pixels = np.random.RandomState(seed).randint(0, 120, (size, size, 3))
    pixels[:, (size // 2) * label : (size // 2) * (label + 1)] += 120
    return Image.fromarray(pixels.astype(np.uint8))


def tone(label: int, seed: int, seconds: float = 0.3, rate: int = RATE) -> NDArray[np.float32]:
    """A low (0) or a high (1) tone with some noise, shape ``(samples,)``."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.RandomState(seed).normal(scale=0.05, size=len(time))
    return (0.5 * np.sin(2 * np.pi * (300 + 1500 * label) * time) + noise).astype(np.float32)


def write_pictures(folder: Path, count: int = 16) -> list[str]:
    """Write pictures into a folder for each of the labels ``left`` and ``right``; return their paths in it."""
    names = []
    for number in range(count):
        name = f"{('left', 'right')[number % 2]}/{number}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(number % 2, number).save(folder / name)
        names.append(name)
    return names


def write_tones(folder: Path, count: int = 16, rate: int = RATE) -> list[str]:
    """Write tones of 0.2 to 0.4 s into a folder for each of the labels ``high`` and ``low``; return their paths."""
    import soundfile

    names = []
    for number in range(count):
        name = f"{('low', 'high')[number % 2]}/{number}.wav"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, tone(number % 2, number, 0.2 + 0.05 * (number % 5), rate), rate)
        names.append(name)
    return names
