"""GGUF files of tiny models, and llama.cpp to run them."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tests.tiny import make_model

#: Words of the vocabulary, which are ASCII: llama.cpp gives no probabilities of half a character.
VOCABULARY = 264
#: Type of transformers -> architecture in GGUF, where the names differ.
_ARCHITECTURES = {"mistral": "llama", "phi": "phi2"}
IDS = [10, 20, 30, 40, 50, 60, 7, 9]


@torch.no_grad()
def make_gguf_model(model_type: str = "llama", **options: Any) -> PreTrainedModel:
    """A tiny model without biases, all parts of which have an effect."""
    model = make_model(model_type, causal=True, biases=False, vocab_size=VOCABULARY, **options)
    for parameter in model.parameters():
        parameter.copy_(parameter * 3 if parameter.dim() == 2 else parameter + 0.1)
    return model.eval()


def save_gguf(folder: Path, name: str = "base.gguf", model_type: str = "llama", **options: Any) -> Path:
    """Write a tiny model without biases as a GGUF file with fp32 weights; LLaMA or Qwen3."""
    return write_gguf(make_gguf_model(model_type, **options), folder / name)


def write_gguf(model: PreTrainedModel, path: Path) -> Path:
    """Write a tiny model as a GGUF file with fp32 weights; GPT-2, Phi, or a type that is built like LLaMA."""
    gguf = pytest.importorskip("gguf")
    config = model.config
    architecture = _ARCHITECTURES.get(config.model_type, config.model_type)
    width, heads = config.hidden_size, config.num_attention_heads
    key_heads = getattr(config, "num_key_value_heads", heads)
    head_width = getattr(config, "head_dim", None) or width // heads
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("a tiny model")
    writer.add_context_length(getattr(config, "n_positions", 128))
    writer.add_embedding_length(width)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(getattr(config, "intermediate_size", 4 * width))
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_key_length(head_width)
    writer.add_value_length(head_width)
    if hasattr(config, "rms_norm_eps"):
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    else:
        writer.add_layer_norm_eps(
            config.layer_norm_eps if hasattr(config, "layer_norm_eps") else config.layer_norm_epsilon
        )
    if rope := getattr(config, "rope_parameters", None):
        writer.add_rope_dimension_count(int(head_width * rope.get("partial_rotary_factor", 1.0)))
        writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_vocab_size(VOCABULARY)
    letters = [chr(i) if 32 < i < 127 else "Ċ" if i == 10 else f"u{i}" for i in range(256)]
    letters[0] = "ab"  # what the only merge makes
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*letters, *(f"<t{i}>" for i in range(VOCABULARY - 256))])
    writer.add_token_types([gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * (VOCABULARY - 256))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    writer.add_pad_token_id(258)
    writer.add_add_bos_token(False)
    numbers = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(numbers[architecture], config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        place = names.get_name(name, try_suffixes=(".weight", ".bias"))
        layer = place.split(".")[-2]
        if architecture == "llama" and layer in ("attn_q", "attn_k"):  # as llama.cpp's converter orders them
            parts = heads if layer == "attn_q" else key_heads
            tensor = tensor.view(parts, 2, -1, width).transpose(1, 2).reshape(tensor.shape)
        if isinstance(model.get_submodule(name.rpartition(".")[0]), Conv1D) and tensor.dim() == 2:
            tensor = tensor.T
        if architecture == "gemma" and layer.endswith("norm"):
            tensor = tensor + 1
        writer.add_tensor(place, np.ascontiguousarray(tensor.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


class LlamaCpp:
    """A GGUF file in llama.cpp, with fp32 attention on one thread."""

    def __init__(self, path: Path) -> None:
        llama = pytest.importorskip("xllamacpp", reason="needs llama.cpp: pip install xllamacpp")
        options = llama.CommonParams()
        options.model.path = str(path)
        options.n_ctx, options.n_parallel, options.n_gpu_layers, options.verbosity = 128, 1, 0, -1
        options.warmup = options.fit_params = False
        options.cpuparams.n_threads = options.cpuparams_batch.n_threads = 1
        options.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        options.cache_type_k = options.cache_type_v = llama.ggml_type.GGML_TYPE_F32
        self._server = llama.Server(options)

    def log_probabilities(self, ids: list[int], vocabulary: int) -> Tensor:
        """Of each token as the next one; shape ``(vocabulary,)``, NaN where llama.cpp does not say."""
        answer = self._complete(ids, 1, n_probs=vocabulary, logprobs=vocabulary)
        found = torch.full((vocabulary,), torch.nan)
        for token in answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
            found[token["id"]] = token["logprob"]
        return found

    def greedy(self, ids: list[int], count: int) -> str:
        """The text that greedy decoding continues with."""
        text: str = self._complete(ids, count)["choices"][0]["text"]
        return text

    def _complete(self, ids: list[int], count: int, **options: Any) -> Any:
        request = {"prompt": ids, "max_tokens": count, "temperature": 0, "cache_prompt": False}
        answer = self._server.handle_completions({**request, **options})
        return json.loads(answer) if isinstance(answer, str) else answer


@torch.no_grad()
def log_probabilities(model: PreTrainedModel | nn.Module | None, ids: list[int]) -> Tensor:
    """What transformers says; see :meth:`LlamaCpp.log_probabilities`."""
    assert model is not None
    logits: Tensor = model.eval()(torch.tensor([ids])).logits[0, -1]
    return logits.float().log_softmax(-1)


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file gets larger than this."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
