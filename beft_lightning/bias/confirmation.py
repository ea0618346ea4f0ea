"""Check what watching found against something independent of it: the names of the layers."""

import re
from collections.abc import Iterable, Sequence

from torch import nn
from transformers.pytorch_utils import Conv1D

from beft_lightning.bias.architecture import Architecture, path_pattern
from beft_lightning.bias.places import AttentionPlace
from beft_lightning.errors import ArchitectureError
from beft_lightning.parameters import clean_name

#: Term -> words, one of which stands in the name of a layer that computes it alone.
_WORDS = {
    "query": {"q", "query", "queries", "wq", "qproj"},
    "key": {"k", "key", "keys", "wk", "kproj"},
    "value": {"v", "value", "values", "wv", "vproj"},
}
_QUERIES = _WORDS["query"] | {"qkv", "wqkv"}
#: Names of modules with queries that no attention takes: linear attention (Qwen3.5), and what chooses the tokens that
#: an attention sees (DeepSeek-V3.2).
_NO_ATTENTION = {"indexer", "linear_attn"}
#: Last names of layers that are wrapped: the name before them tells.
_WRAPPED = {"linear", "layer", "base_layer"}


def check_found(module: nn.Module, found: Sequence[Architecture]) -> None:
    """Check that what watching found agrees with the names of a module's layers, and leaves out none.

    A forward pass shows what computes what, but rare constructions are taken for something else: a softmax that is no
    attention, a gate behind a projection, a part that a small twin or made-up inputs do not reach. Their names tell.

    Args:
        module: The module that was watched, or whose small twin was.
        found: What was found.

    Raises:
        ArchitectureError: If a layer's name is none of its term, an attention lacks one of query, key and value, or
            layers with the name of a query are left out.
    """
    for one in found:
        terms = one.paths
        for prefix in ("", "cross_"):
            inputs = {term: f"{prefix}{term}" for term in _WORDS if f"{prefix}{term}" in terms}
            if inputs and len(inputs) < len(_WORDS):
                missing = ", ".join(f"{prefix}{term}" for term in _WORDS if term not in inputs)
                raise ArchitectureError(f"in {one.layer!r} no layer computes {missing} alone.")
            for term, full in inputs.items():
                if full in one.terms and not _words(one.terms[full]) & _WORDS[term]:
                    raise ArchitectureError(f"in {one.layer!r} the {full} seems to come from {one.terms[full]!r}.")
        if doubled := [term for term in _WORDS if terms.get(term, "") == terms.get(f"cross_{term}")]:
            raise ArchitectureError(f"in {one.layer!r} one layer is {doubled[0]} and cross_{doubled[0]}.")
    if unseen := _unseen_queries(module, found):
        raise ArchitectureError(
            f"{len(unseen)} layers with the name of a query were not seen in attention, such as {unseen[0]!r}."
        )


def _unseen_queries(module: nn.Module, found: Sequence[Architecture]) -> list[str]:
    """Return the layers of a module with the name of a query beside which no layer was found."""
    patterns = [path_pattern(f"{one.layer}.{path}") for one in found for path in one.paths.values()]
    layers = [
        name
        for name, child in module.named_modules()
        if isinstance(child, nn.Linear | Conv1D) and _NO_ATTENTION.isdisjoint(name.split("."))
    ]
    seen = {name.rpartition(".")[0] for name in layers if any(pattern.search(name) for pattern in patterns)}
    return [name for name in layers if _words(name) & _QUERIES and name.rpartition(".")[0] not in seen]


def unseen_layers(module: nn.Module, found: Iterable[Architecture], places: Iterable[AttentionPlace]) -> list[str]:
    """Return the layers that architectures take for those of a query, key or value, and that no attention takes.

    Layers of another kind, such as linear attention, may have projections of the same names.

    Args:
        module: The module that was watched.
        found: What was found in it.
        places: Where attentions were seen.
    """
    seen = {path for place in places for path in place.paths}
    paths = [f"{one.layer}.{p}" for one in found for term, p in one.paths.items() if term.rpartition("_")[2] in _WORDS]
    patterns = [path_pattern(path) for path in paths]
    names = [clean_name(name) for name, _ in module.named_modules()]
    return [name for name in names if name not in seen and any(pattern.match(name) for pattern in patterns)]


def _words(path: str) -> set[str]:
    """Return the words of a layer's name, in lower case and without numbers.

    >>> sorted(_words("layers.0.attn.to_Q2"))
    ['q', 'to']
    >>> sorted(_words("attn.q_proj.linear"))
    ['proj', 'q']
    """
    names = [name for name in path.lower().split(".") if name not in _WRAPPED]
    return set(re.split(r"[\W_\d]+", names[-1] if names else "")) - {""}
