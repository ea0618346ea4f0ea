"""Load backbones and tokenizers: from the hub, a folder, an installed package, or a config alone."""

import struct
from collections.abc import Container, Mapping
from importlib.util import find_spec
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_MULTIPLE_CHOICE_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from beft_lightning.attention import attention_options
from beft_lightning.backbones import gguf_location, not_loadable, resolve_backbone
from beft_lightning.bias.heads import head_parameters
from beft_lightning.bias.precision import keep_fp32
from beft_lightning.errors import BackboneError
from beft_lightning.stored_biases import check_stored_biases, unused_gguf_biases

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
#: Precisions of bitsandbytes: the linear layers' weights only; everything else is fp32.
QUANTIZED = ("int8", "nf4")


#: Auto class -> the configurations that it has a head for.
_HEADS: Mapping[str, Container[type]] = {
    "AutoModelForAudioClassification": MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING,
    "AutoModelForCausalLM": MODEL_FOR_CAUSAL_LM_MAPPING,
    "AutoModelForImageClassification": MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    "AutoModelForMultipleChoice": MODEL_FOR_MULTIPLE_CHOICE_MAPPING,
    "AutoModelForSequenceClassification": MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    "AutoModelForTokenClassification": MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
}


def check_dtype(name: str) -> None:
    """Check that the name of a precision is known.

    Raises:
        BackboneError: If it is neither in :data:`DTYPES` nor in :data:`QUANTIZED`.
    """
    if name not in (*DTYPES, *QUANTIZED):
        raise BackboneError(f"dtype {name!r} is unknown; choose one of: {', '.join([*DTYPES, *QUANTIZED])}.")


def load_tokenizer(backbone: str, gguf_file: str | None = None) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a backbone.

    Args:
        backbone: Hub id, local folder, or ``pkg://PACKAGE/FOLDER``.
        gguf_file: Name of the GGUF file in that folder that holds the tokenizer.

    Raises:
        BackboneError: If it cannot be loaded.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            resolve_backbone(backbone), gguf_file=gguf_file, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise not_loadable(backbone, "tokenizer", error) from error
    return tokenizer


def load_config(backbone: str, gguf_file: str | None = None, **options: Any) -> PreTrainedConfig:
    """Return the configuration of a backbone. Python code in its folder is never run.

    Args:
        backbone: Hub id, local folder, or ``pkg://PACKAGE/FOLDER``.
        gguf_file: Name of the GGUF file in that folder that holds it.
        options: Values to set, such as ``num_labels``.

    Raises:
        BackboneError: If there is no such package.
        OSError, ValueError, KeyError, ImportError: As transformers raises them.
    """
    return AutoConfig.from_pretrained(
        resolve_backbone(backbone), gguf_file=gguf_file, trust_remote_code=False, **options
    )


def load_model(
    auto_class: Any,
    backbone: str,
    *,
    gguf_file: str | None = None,
    random_init: bool = False,
    dtype: str = "float32",
    attention: str | None = None,
    **options: Any,
) -> PreTrainedModel:
    """Return a backbone under the head that ``auto_class`` puts on it, in training mode.

    Args:
        auto_class: One of transformers' Auto classes.
        backbone: Hub id, local folder, or ``pkg://PACKAGE/FOLDER``.
        gguf_file: Name of the GGUF file in that folder that holds the weights.
        random_init: Build the architecture from the config with random weights.
        dtype: Precision of the weights: one of ``float32``, ``bfloat16``, ``float16``, ``int8``, ``nf4``. Biases,
            layer norms and the head are always fp32.
        attention: The attention's implementation, such as ``sdpa``; by default transformers chooses.
        options: Config values to set, such as ``num_labels``.

    Raises:
        BackboneError: If the backbone cannot be loaded, lacks pretrained weights of its own layers, or cannot have the
            attention.
    """
    source = resolve_backbone(backbone)
    check_dtype(dtype)
    if dtype in QUANTIZED and (random_init or gguf_file):
        raise BackboneError(
            f"dtype {dtype!r} quantizes a checkpoint as it is loaded, which random_init has none of, and a GGUF file "
            "is quantized already: use float32 or bfloat16."
        )
    precision = DTYPES.get(dtype, torch.float32)
    # transformers reports every missing head weight on its own; what is missing is checked below.
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        config = load_config(backbone, gguf_file, **options)
        _check_head(auto_class, config, backbone)
        chosen = attention_options(auto_class, config, attention)
        if random_init:
            model: PreTrainedModel = auto_class.from_config(config, dtype=precision, trust_remote_code=False, **chosen)
        else:
            # A head made for other labels is replaced; _check_loaded sees to it that nothing else is.
            quantization = (
                {"quantization_config": _quantization(auto_class, config, dtype)} if dtype in QUANTIZED else {}
            )
            model, info = auto_class.from_pretrained(
                source,
                config=config,
                gguf_file=gguf_file,
                dtype=precision,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                weights_only=True,
                trust_remote_code=False,
                **chosen,
                **quantization,
            )
            replaced = [key for key, *_ in info["mismatched_keys"]]
            _check_loaded(backbone, model, [*info["missing_keys"], *replaced])
            unused = (
                unused_gguf_biases(model, gguf_location(backbone, gguf_file)) if gguf_file else info["unexpected_keys"]
            )
            check_stored_biases(backbone, model, unused)
            if replaced:
                rank_zero_info(f"{backbone}: a new head replaces the checkpoint's, which has another size.")
    except UnpicklingError as error:
        raise BackboneError(
            f"backbone {backbone!r}: cannot load the model: its weights are damaged, or a pickle that holds more than "
            "tensors, which is never executed. Give a backbone with weights in safetensors."
        ) from error
    except (OSError, ValueError, KeyError, ImportError, SafetensorError, struct.error) as error:  # of a GGUF file
        raise not_loadable(backbone, "model", error) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    keep_fp32(model, head_parameters(model))
    _keep_weights_trainable(model)
    # transformers hands models out in evaluation mode, and Lightning trains a module in the mode it finds.
    return model.train()


def check_language_model(model: PreTrainedModel, task: str) -> None:
    """Check that a model's tokens do not see what comes after them.

    Transformers loads an encoder as a causal language model with nothing but a warning.

    Args:
        model: A model under a language-model head.
        task: Name of the task, for the error.

    Raises:
        BackboneError: If it is an encoder: its scores of options would look at the options themselves.
    """
    masked = type(model.config) in MODEL_FOR_MASKED_LM_MAPPING
    if masked and not model.config.is_decoder:
        raise BackboneError(
            f"{task} is asked with a prompt, which needs a causal language model, and {model.config.model_type} is an "
            "encoder: choose a decoder such as OPT, or a task that is read without a prompt."
        )


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Turn on activation checkpointing: layers are computed again in the backward pass instead of kept.

    Raises:
        BackboneError: If transformers does not support it for this type.
    """
    try:
        # The reentrant kind would find no input that needs a gradient, as the embeddings are frozen.
        model.activation_checkpointing_enable({"use_reentrant": False})
    except ValueError as error:
        raise BackboneError(
            f"activation_checkpointing: transformers has none for {model.config.model_type}; leave it out."
        ) from error


def _quantization(auto_class: Any, config: PreTrainedConfig, dtype: str) -> BitsAndBytesConfig:
    """Return the configuration that quantizes all linear layers but the head, which is trained."""
    if find_spec("bitsandbytes") is None:
        raise BackboneError(f"dtype {dtype!r} needs bitsandbytes: pip install 'beft-lightning[quantized]'.")
    with torch.device("meta"):
        skeleton = auto_class.from_config(config, trust_remote_code=False)
    spared = {name.rpartition(".")[0] for name in head_parameters(skeleton)}
    output = skeleton.get_output_embeddings()
    spared |= {name for name, child in skeleton.named_modules() if child is output}
    return BitsAndBytesConfig(
        load_in_8bit=dtype == "int8",
        load_in_4bit=dtype == "nf4",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=sorted(spared),
    )


def _keep_weights_trainable(model: PreTrainedModel) -> None:
    """Stop bitsandbytes from repacking 4-bit weights in the first evaluation: repacked ones have no gradient."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010  # unknown to the type checker


def _check_head(auto_class: Any, config: PreTrainedConfig, backbone: str) -> None:
    """Check that a type has a head for the task: an encoder-decoder (T5) has none that continues a prompt."""
    if type(config) not in _HEADS.get(auto_class.__name__, (type(config),)):
        raise BackboneError(
            f"backbone {backbone!r}: transformers has no {auto_class.__name__} of type {config.model_type!r}. Prompted "
            "tasks need a causal language model such as OPT, multiple choice an encoder such as BERT, images a vision "
            "model such as ViT, sounds a speech model such as wav2vec2."
        )


def _check_loaded(backbone: str, model: PreTrainedModel, missing: list[str]) -> None:
    """Check that only a new head, and the pooler that feeds it, start from random weights."""
    prefix = f"{model.base_model_prefix}."
    if model.base_model is model:
        head = head_parameters(model)
        lost = [key for key in missing if key not in head]
    else:
        lost = [key for key in missing if key.startswith(prefix) and not key.startswith(f"{prefix}pooler.")]
    if lost:
        raise BackboneError(
            f"backbone {backbone!r} holds no pretrained weights for {len(lost)} tensors of {type(model).__name__}, for "
            f"example {sorted(lost)[0]!r}. Is it a checkpoint of model type {model.config.model_type!r}? "
            "Set random_init to train from random weights on purpose."
        )


def usable_positions(model: PreTrainedModel) -> int | None:
    """Return the number of tokens that a model has positions for; ``None`` if it knows no limit.

    RoBERTa and its relatives count positions from behind the one of the padding token.
    """
    positions: int | None = getattr(model.config, "max_position_embeddings", None)
    embeddings = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    padding: int | None = getattr(embeddings, "padding_idx", None)
    return positions if positions is None or padding is None else positions - padding - 1


def check_length(model: PreTrainedModel, longest: int, backbone: str) -> None:
    """Check that a model has positions for the longest input.

    Args:
        model: The model.
        longest: Number of tokens.
        backbone: Its name, for the error.

    Raises:
        BackboneError: If it has fewer.
    """
    positions = usable_positions(model)
    if positions is not None and longest > positions:
        raise BackboneError(
            f"the longest input has {longest} tokens, and {backbone} has {positions} positions: set data.max_length to "
            f"at most {positions}."
        )
