"""The implementation of a model's attention."""

from typing import Any

import torch
from transformers import PreTrainedConfig

from beft_lightning.errors import BackboneError

#: The usual implementations, for the message; transformers knows more.
_USUAL = ("sdpa", "eager", "flex_attention", "flash_attention_2", "flash_attention_3")


def attention_options(auto_class: Any, config: PreTrainedConfig, name: str | None) -> dict[str, str]:
    """Return what a model is loaded with to get an implementation of attention, once it is known to be available.

    Args:
        auto_class: The Auto class that the model is made by.
        config: The model's configuration.
        name: Name of the implementation; ``None`` leaves it to transformers.

    Raises:
        BackboneError: If transformers does not know it, the model does not support it, or its package is missing.
    """
    if name is None:
        return {}
    if (problem := _problem(auto_class, config, name)) is not None:
        available = [other for other in _USUAL if _problem(auto_class, config, other) is None]
        raise BackboneError(
            f"attn_implementation {name!r} is not available for {config.model_type} here ({problem}). Available: "
            f"{', '.join(available)}."
        )
    return {"attn_implementation": name}


def _problem(auto_class: Any, config: PreTrainedConfig, name: str) -> str | None:
    """Return why a model without values cannot be made with an implementation; ``None`` if it can."""
    try:
        with torch.device("meta"):
            auto_class.from_config(config, trust_remote_code=False, attn_implementation=name)
    except (ValueError, ImportError) as error:
        return str(error).strip().splitlines()[0].rstrip(".")
    return None
