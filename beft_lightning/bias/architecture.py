"""The description of an architecture: its terms, their modules, fused projections, and its attention."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from beft_lightning.errors import ArchitectureError

#: Every term, in the order used to break ties, with its symbol in the BEFT figures.
TERM_SYMBOLS: Mapping[str, str] = {
    "query": "b_q",
    "key": "b_k",
    "value": "b_v",
    "attention_output": "b_m1",
    "attention_norm": "b_LN1",
    "cross_query": "b_xq",
    "cross_key": "b_xk",
    "cross_value": "b_xv",
    "cross_output": "b_xm1",
    "mlp_gate": "b_gate",
    "mlp_in": "b_m2",
    "mlp_out": "b_m3",
    "mlp_norm": "b_LN2",
}

#: The name, in a fused layer, of outputs that belong to no term.
REST = "rest"

_HEAD = re.compile(r"\.h\d+$")


@dataclass(frozen=True)
class Fused:
    """The order of outputs in one linear layer that computes several terms at once.

    The outputs are ``groups`` runs of one length, and in each run every part has its share, one after the other.

    Args:
        parts: Term -> its share of a run (any unit: heads, say), in the order in which they stand. Outputs of no term
            are called ``rest``.
        groups: Number of runs. 1 where whole parts stand one after the other (GPT-2); the number of heads where query,
            key and value of a head stand together (GPT-NeoX); the number of key-value heads where the queries of a
            group stand before their key and value (Falcon).
        bias: Name of the layer's bias; ``in_proj_bias`` in ``nn.MultiheadAttention``.
    """

    parts: Mapping[str, int]
    groups: int = 1
    bias: str = "bias"

    def __post_init__(self) -> None:
        """Check the shares and groups."""
        if (len(self.parts) < 2 and not self.by_heads) or min(self.parts.values()) < 1 or self.groups < 1:
            raise ArchitectureError(
                f"a fused layer needs at least two parts with positive shares and at least one group, got parts "
                f"{dict(self.parts)} and groups {self.groups}; for example parts {{query: 1, key: 1, value: 1}}."
            )

    @property
    def by_heads(self) -> bool:
        """Whether some parts are single heads of a term, as in a bias whose heads are set apart: ``value.h5``."""
        return any(_HEAD.search(part) for part in self.parts)

    def widths(self, outputs: int) -> list[int]:
        """Return the number of outputs of each part in a run, for a layer with ``outputs`` outputs.

        Raises:
            ArchitectureError: If the outputs cannot be shared out.
        """
        unit, rest = divmod(outputs, self.groups * sum(self.parts.values()))
        if rest:
            raise ArchitectureError(
                f"{outputs} outputs of a fused layer cannot be shared out to {self.groups} groups of "
                f"{dict(self.parts)}: correct `groups` or the shares in the `architecture` mapping."
            )
        return [share * unit for share in self.parts.values()]


@dataclass(frozen=True)
class Attention:
    """Facts about a model type's attention beyond its bias terms.

    Args:
        takes_prefix: Whether it takes a cache of keys and values that was filled beforehand.
        alibi: Whether it adds a bias by column to the logits (ALiBi), whatever positions are given.
        window: Number of columns that a token sees; ``None`` for all.
        positions: Position of a token if none is given: its ``column``, its count in the attention ``mask`` (OPT), or
            its count behind the ``padding`` token's id (RoBERTa).
        parallel_mlp: Whether attention and MLP read the same input and are added to the same sum, so that a constant
            may move from one to the other.
        head_width: Number of values of a head; ``None`` if the modules around the projections say so, as in
            transformers.
    """

    takes_prefix: bool = False
    alibi: bool = False
    window: int | None = None
    positions: Literal["column", "mask", "padding"] = "column"
    parallel_mlp: bool = False
    head_width: int | None = None


@dataclass(frozen=True)
class Architecture:
    """The places of a model type's bias terms, and facts about its attention.

    Args:
        layer: Path of one layer, with ``{}`` for its index, for example ``encoder.layer.{}``. It may be preceded by
            anything, so that one entry serves a bare encoder and the same encoder under a task head. A ``*`` stands
            for any one name, here and in the paths below; layers of several stacks that it matches are counted on.
        terms: Path, inside a layer, of the module that owns each term's ``bias``.
        fused: Path, inside a layer, of each module that computes several terms at once -> how it orders them.
        inert: Terms that cannot change the model's output. ``None`` means unknown: then they are probed.
        attention: Facts about the attention; the default suits any type.
    """

    layer: str
    terms: Mapping[str, str] = field(default_factory=dict)
    fused: Mapping[str, Fused] = field(default_factory=dict)
    inert: tuple[str, ...] | None = None
    attention: Attention = Attention()

    def __post_init__(self) -> None:
        """Check that the mapping can match something."""
        if self.layer.count("{}") != 1:
            raise ArchitectureError(
                f"Architecture.layer is {self.layer!r}; it needs exactly one '{{}}' where the layer's index stands, "
                "for example 'encoder.layer.{}'."
            )
        named = [*self.terms, *(term for fused in self.fused.values() for term in fused.parts if term != REST)]
        if not named:
            raise ArchitectureError(
                "Architecture.terms is empty; map at least one term to a module inside a layer, "
                "for example {'value': 'attention.self.value'}."
            )
        if twice := sorted({term for term in named if named.count(term) > 1}):
            raise ArchitectureError(f"Architecture maps {', '.join(twice)} twice; a term has one place in a layer.")

    @property
    def paths(self) -> dict[str, str]:
        """Term -> path, inside a layer, of the module that owns its bias, alone or with others."""
        parts = {term: path for path, fused in self.fused.items() for term in fused.parts if term != REST}
        return {**parts, **self.terms}


#: Where terms are: one description, or one for each stack of layers; None if it is to be found out.
Architectures = Architecture | Sequence[Architecture] | None


def path_pattern(path: str) -> re.Pattern[str]:
    """Return a pattern of the end of a module's name: ``{}`` is an index, ``*`` any one name."""
    escaped = re.escape(path).replace(re.escape("{}"), r"(\d+)").replace(re.escape("*"), r"[^.]+")
    return re.compile(rf"(?:^|\.){escaped}$")
