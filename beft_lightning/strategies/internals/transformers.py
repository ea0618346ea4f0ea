"""Undocumented names of transformers."""

from collections.abc import Mapping

from transformers import PreTrainedModel
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map


def names_in_gguf(model: PreTrainedModel) -> Mapping[str, str]:
    """Return the name in a GGUF file -> the name in the model, for each tensor of the model.

    transformers reads the tensors of this mapping, and says nothing of others in the file.
    """
    processor = TENSOR_PROCESSORS.get(model.config.model_type, TensorProcessor)(config=model.config.to_dict())
    names: Mapping[str, str] = get_gguf_hf_weights_map(model, processor)
    return names
