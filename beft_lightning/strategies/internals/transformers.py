"""Undocumented names of transformers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from transformers import PreTrainedModel
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map


def names_in_gguf(model: PreTrainedModel) -> Mapping[str, str]:
    """Return the name in a GGUF file -> the name in the model, for each tensor of the model.

    transformers reads the tensors of this mapping, and says nothing of others in the file.
    """
    processor = TENSOR_PROCESSORS.get(model.config.model_type, TensorProcessor)(config=model.config.to_dict())
    names: Mapping[str, str] = get_gguf_hf_weights_map(model, processor)
    return names


def values_from_gguf(
    values: np.ndarray[Any, Any], name: str, architecture: str, config: Mapping[str, Any]
) -> np.ndarray[Any, Any]:
    """Return a tensor of a GGUF file as transformers gives it to a model.

    Args:
        values: Its values in the file.
        name: Its name in the file.
        architecture: The architecture that the file names.
        config: Values of the model's configuration: the numbers of heads.
    """
    processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=config)
    read: np.ndarray[Any, Any] = processor.process(
        weights=values, name=name, tensor_key_mapping={}, parsed_parameters={}
    ).weights
    return read
