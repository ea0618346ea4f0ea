"""Where the terms of an attention are, from what was seen of it in a forward pass."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from beft_lightning.bias.architecture import Fused
from beft_lightning.bias.sources import fused_layout, source
from beft_lightning.bias.watching import INPUTS, SeenAttention, Watch

_EQUAL = {"query": 1, "key": 1, "value": 1}


@dataclass(frozen=True)
class AttentionPlace:
    """Where the terms of one attention are.

    Args:
        terms: Term -> path of the module that owns its bias alone.
        fused: Path of a module -> how it orders the terms that it computes.
    """

    terms: dict[str, str] = field(default_factory=dict)
    fused: dict[str, Fused] = field(default_factory=dict)

    @property
    def by_term(self) -> dict[str, str]:
        """Term -> path of its module."""
        return {**{term: path for path, layout in self.fused.items() for term in layout.parts}, **self.terms}

    @property
    def paths(self) -> list[str]:
        """The paths of all modules."""
        return [*self.terms.values(), *self.fused]

    def within(self, name: str) -> "AttentionPlace | None":
        """Return the place by paths in a module; None if some of it lies elsewhere."""
        prefix = f"{name}." if name else ""
        if not all(path.startswith(prefix) for path in self.paths):
            return None
        return AttentionPlace(
            {term: path.removeprefix(prefix) for term, path in self.terms.items()},
            {path.removeprefix(prefix): layout for path, layout in self.fused.items()},
        )


def attention_place(watch: Watch, seen: SeenAttention) -> AttentionPlace | None:
    """Return where the terms of an attention are; None if its inputs come from no layers of their own."""
    if seen.module:
        layout = Fused(_EQUAL, bias="in_proj_bias")
        place = AttentionPlace({"attention_output": f"{seen.module}.out_proj"}, {seen.module: layout})
        return place if seen.shares_input else crossed(place)
    sources = {term: found for term in INPUTS if (found := source(watch, seen.inputs[term])) is not None}
    terms: dict[str, str] = {}
    fused: dict[str, Fused] = {}
    for layer in dict.fromkeys(found.layer for found in sources.values()):
        parts = {term: found.outputs for term, found in sources.items() if found.layer == layer}
        if len(parts) == 1 and all(next(iter(parts.values()))):
            terms[next(iter(parts))] = layer
        elif order := fused_layout(parts):
            fused[layer] = order
    if not terms and not fused:
        return None
    if seen.consumer and seen.consumer not in terms.values() and seen.consumer not in fused:
        terms["attention_output"] = seen.consumer
    place = AttentionPlace(terms, fused)
    return crossed(place) if _is_cross(watch, seen, place) else place


def crossed(place: AttentionPlace) -> AttentionPlace:
    """Return a place with the names of cross attention's terms."""
    names = {term: f"cross_{term}" for term in INPUTS} | {"attention_output": "cross_output"}
    return AttentionPlace(
        {names[term]: path for term, path in place.terms.items()},
        {
            path: replace(layout, parts={names.get(term, term): share for term, share in layout.parts.items()})
            for path, layout in place.fused.items()
        },
    )


def _is_cross(watch: Watch, seen: SeenAttention, place: AttentionPlace) -> bool:
    """Return whether key and query come from different sequences."""
    inside = common_path(path for path in place.paths)
    query, key = (watch.ancestors(seen.inputs[term], inside=inside) for term in ("query", "key"))
    return not query & key


def common_path(paths: Iterable[str]) -> str:
    """Return the path of the innermost module that holds all.

    >>> common_path(["layer.0.attention.self.query", "layer.0.attention.output"])
    'layer.0.attention'
    """
    parts = [path.split(".")[:-1] for path in paths]
    shared = []
    for names in zip(*parts, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return ".".join(shared)


_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")


def numbered(places: Iterable[AttentionPlace]) -> Iterator[tuple[str, str, AttentionPlace]]:
    """Yield the pattern of the layer of each kind of place, the path of one such layer, and the place inside of it.

    Places are of one kind if their paths differ in numbers alone. A number that differs is one of layers: the last such
    is the layer's index (``{}``); those before it, of stages, stand for any (``*``).

    >>> one, two = (AttentionPlace({"value": f"h.{i}.attn.v", "query": f"h.{i}.attn.q"}, {}) for i in range(2))
    >>> list(numbered([one, two]))
    [('h.{}', 'h.0', AttentionPlace(terms={'value': 'attn.v', 'query': 'attn.q'}, fused={}))]
    """
    kinds: dict[tuple[str, ...], list[AttentionPlace]] = {}
    for place in places:
        kinds.setdefault((*place.terms, *(_NUMBER.sub("#", path) for path in place.paths)), []).append(place)
    for same in kinds.values():
        prefixes = [common_path(place.paths).split(".") for place in same]
        at = [i for i, name in enumerate(prefixes[0]) if name.isdecimal()]
        varying = [i for i in at if len({names[i] for names in prefixes if i < len(names)}) > 1] or at[-1:]
        if not varying:
            continue  # One attention outside of any layers, such as a pooling one.
        cut = varying[-1] + 1
        layer = [("{}" if i == cut - 1 else "*") if i in varying else name for i, name in enumerate(prefixes[0][:cut])]
        inside = {path: ".".join(path.split(".")[cut:]) for path in same[0].paths}
        yield (
            ".".join(layer),
            ".".join(prefixes[0][:cut]),
            AttentionPlace(
                {term: inside[path] for term, path in same[0].terms.items()},
                {inside[path]: fused for path, fused in same[0].fused.items()},
            ),
        )
