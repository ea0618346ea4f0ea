"""Which programs read the biases that an export adds to an architecture. Facts only: read in a source, or measured."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

_ATTENTION = frozenset({"q_proj", "k_proj", "v_proj", "o_proj"})
_MLP = frozenset({"gate_proj", "up_proj", "down_proj"})


@dataclass(frozen=True)
class Client:
    """A program that loads models.

    Args:
        source: Where the facts were read; of a model type, with ``{}`` for the type.
        reads: Model type -> the layers whose added bias it reads. It says nothing of the others, and computes without
            them. Nothing is known of types that are not here.
    """

    source: str
    reads: Mapping[str, frozenset[str]]


#: Name -> program.
CLIENTS: Mapping[str, Client] = {
    "vLLM": Client(
        "https://github.com/vllm-project/vllm/blob/main/vllm/model_executor/models/{}.py",
        {
            "llama": _ATTENTION | _MLP,
            "qwen3": _ATTENTION - {"o_proj"},
            "gemma": frozenset(),
            "olmo2": frozenset(),
        },
    ),
    "SGLang": Client(
        "https://github.com/sgl-project/sglang/blob/main/python/sglang/srt/models/{}.py",
        {"llama": _ATTENTION, "qwen3": _ATTENTION, "gemma": frozenset()},
    ),
    "llama.cpp": Client(
        "https://github.com/ggml-org/llama.cpp/blob/master/src/models/{}.cpp", {"llama": _ATTENTION | _MLP}
    ),
    "CTranslate2": Client(
        "https://github.com/OpenNMT/CTranslate2/blob/master/python/ctranslate2/converters/transformers.py",
        {"llama": _ATTENTION | _MLP, "gemma": _MLP, "gemma2": _MLP},
    ),
    # torch.onnx.export traces the model of transformers; other converters have not been tried.
    "ONNX Runtime": Client(
        "https://docs.pytorch.org/docs/stable/onnx.html", dict.fromkeys(("llama", "gemma"), _ATTENTION | _MLP)
    ),
}


@dataclass(frozen=True)
class Support:
    """What a program does with added biases.

    Args:
        reads: True or False; None if it is not known.
        missing: The layers whose bias it leaves out.
        source: Where that was read; empty if it is not known.
    """

    reads: bool | None
    missing: list[str]
    source: str


def support(model_type: str, added: Iterable[str]) -> dict[str, Support]:
    """Return what each program does with the biases that an export has added to a model; nothing if there are none.

    Args:
        model_type: Type of the model in transformers.
        added: Names of the added biases, such as ``model.layers.0.self_attn.v_proj.bias``.
    """
    layers = {name.split(".")[-2] for name in added}
    if not layers:
        return {}
    found = {"transformers": Support(True, [], "https://github.com/huggingface/transformers")}
    for name, client in CLIENTS.items():
        reads = client.reads.get(model_type)
        missing = [] if reads is None else sorted(layers - reads)
        source = "" if reads is None else client.source.format(model_type)
        found[name] = Support(None if reads is None else not missing, missing, source)
    return found


def warn_of_losses(clients: Mapping[str, Support]) -> None:
    """Warn of programs that load an export and compute without some of its biases."""
    for name, facts in clients.items():
        if facts.missing:
            rank_zero_warn(
                f"{name} has no place for the biases of {', '.join(facts.missing)} in this architecture, and computes "
                f"without them, with no error (read in {facts.source}): use transformers, or another format."
            )
