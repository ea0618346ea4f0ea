"""Architectures as a user writes them."""

from collections.abc import Iterable, Mapping

from beft_lightning.bias.architecture import Architecture

#: How to describe a model by hand.
HOW_TO_MAP = """Say where its biases are, in YAML:
  selection:
    architecture:
      layer: model.layers.{}
      terms: {query: self_attn.q_proj, key: self_attn.k_proj, value: self_attn.v_proj}
or in Python, for `architecture=` of the functions and of BiasSelectionCallback:
  Architecture("model.layers.{}", terms={"query": "self_attn.q_proj", "value": "self_attn.v_proj"})"""


def described(found: Iterable[Architecture]) -> str:
    """Return architectures as the YAML that would say the same."""
    return "\n".join(_yaml(one) for one in found)


def _yaml(architecture: Architecture) -> str:
    lines = ["  selection:", "    architecture:", f"      layer: {architecture.layer}"]
    if architecture.terms:
        lines.append(f"      terms: {_flow(architecture.terms)}")
    if architecture.fused:
        lines.append("      fused:")
        for path, fused in architecture.fused.items():
            lines.append(f"        {path}: {{parts: {_flow(fused.parts)}, groups: {fused.groups}, bias: {fused.bias}}}")
    return "\n".join(lines)


def _flow(mapping: Mapping[str, object]) -> str:
    return "{" + ", ".join(f"{name}: {value}" for name, value in mapping.items()) + "}"
