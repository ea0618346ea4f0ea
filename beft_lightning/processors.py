"""What turns raw inputs into a model's inputs: tokenizers, image processors and feature extractors."""

from collections.abc import Callable, Mapping
from typing import Any

from transformers import (
    FEATURE_EXTRACTOR_MAPPING,
    IMAGE_PROCESSOR_MAPPING,
    AutoFeatureExtractor,
    AutoImageProcessor,
    PreTrainedConfig,
)

from beft_lightning.backbones import resolve_backbone
from beft_lightning.errors import BackboneError
from beft_lightning.models import load_config, load_tokenizer


def load_processor(kind: str | None, backbone: str, gguf_file: str | None = None) -> Any:
    """Return what turns the raw inputs of a kind of task into a backbone's inputs.

    Args:
        kind: Kind of the task; None for a checkpoint of the first version, which had texts alone.
        backbone: Hub id, local folder, or ``pkg://PACKAGE/FOLDER``.
        gguf_file: Name of the GGUF file in that folder that holds the tokenizer, for texts.

    Raises:
        BackboneError: If it cannot be loaded.
    """
    if kind is None or kind not in _LOADERS:
        return load_tokenizer(backbone, gguf_file)
    try:
        return _LOADERS[kind].from_pretrained(resolve_backbone(backbone), trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise BackboneError(
            f"backbone {backbone!r}: cannot load its preprocessor_config.json, which says how {_INPUTS[kind]} are "
            f"prepared ({str(error).strip().splitlines()[0]}). Give the folder that the model was published with; with "
            "random_init it is not needed."
        ) from error


def make_processor(kind: str, backbone: str) -> Any:
    """Return what a model of random weights needs: its type's own processor, of the size in the config.

    Args:
        kind: Kind of the task: ``image_classification`` or ``audio_classification``.
        backbone: Hub id or folder of the config.

    Raises:
        BackboneError: If the config cannot be loaded, or transformers has no such processor for the type.
    """
    try:
        config = load_config(backbone)
        return _MAKERS[kind](config)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise BackboneError(
            f"backbone {backbone!r}: transformers has no processor for {_INPUTS[kind]} of this type "
            f"({type(error).__name__}: {error})."
        ) from error


def _image_processor(config: PreTrainedConfig) -> Any:
    """Return an image processor that brings images to the size and channels of a config."""
    vision = getattr(config, "vision_config", config)
    classes: Any = IMAGE_PROCESSOR_MAPPING[type(config)]
    make = classes.get("torchvision") or classes["pil"]
    default = make()
    height, width = vision.image_size if isinstance(vision.image_size, list | tuple) else (vision.image_size,) * 2
    size = {"height": height, "width": width}
    options: dict[str, Any] = {"size": size if "height" in default.size else {"shortest_edge": max(height, width)}}
    if getattr(default, "crop_size", None):
        options["crop_size"] = size
    if vision.num_channels == 1:
        options |= {"image_mean": [0.5], "image_std": [0.5], "do_convert_rgb": False}
    return make(**options)


def _feature_extractor(config: PreTrainedConfig) -> Any:
    """Return a feature extractor for the spectrograms, or the samples, of a config."""
    make: Any = FEATURE_EXTRACTOR_MAPPING[type(config)]
    if not hasattr(config, "num_mel_bins"):
        # Models with layer norms were trained with a mask of what is padding; the others, with group norms, without.
        return make(return_attention_mask=getattr(config, "feat_extract_norm", "layer") == "layer")
    options: dict[str, Any] = {"feature_size": config.num_mel_bins}
    if positions := getattr(config, "max_source_positions", None):
        default = make()
        # Each position is two frames.
        seconds, rest = divmod(2 * positions * default.hop_length, default.sampling_rate)
        if rest:
            raise ValueError(f"max_source_positions {positions} are no whole number of seconds")
        options["chunk_length"] = seconds
    return make(**options)


#: Kind of task -> transformers' Auto class, what makes one from a config, and what the inputs are.
_LOADERS: Mapping[str, Any] = {"image_classification": AutoImageProcessor, "audio_classification": AutoFeatureExtractor}
_MAKERS: Mapping[str, Callable[[PreTrainedConfig], Any]] = {
    "image_classification": _image_processor,
    "audio_classification": _feature_extractor,
}
_INPUTS: Mapping[str, str] = {"image_classification": "images", "audio_classification": "sounds"}
