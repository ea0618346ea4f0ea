"""Names of what is tuned: of a term, of one tower's term, and of a single layer or head of a term."""

import re
from collections.abc import Iterable

from beft_lightning.errors import TermError

_PLACES = re.compile(r"((?:\.h?\d+)*)$")


def split_name(name: str) -> tuple[str, str]:
    """Return the term that a name is of, with its tower, and the place in it that is meant.

    >>> split_name("value"), split_name("vision_model.value.3"), split_name("towers.0.value")
    (('value', ''), ('vision_model.value', '3'), ('towers.0.value', ''))
    """
    places = _PLACES.search(name)
    assert places is not None
    return name[: places.start()], places[1].removeprefix(".")


def parsed(name: str) -> tuple[str, int | None, int | None]:
    """Return the term, with its tower, the layer and the head that a name says.

    >>> parsed("value"), parsed("value.3"), parsed("left.value.3.h5")
    (('value', None, None), ('value', 3, None), ('left.value', 3, 5))

    Raises:
        TermError: If what stands behind the term is neither a layer nor one of its heads.
    """
    term, place = split_name(name)
    if not (match := re.fullmatch(r"(?:(\d+)(?:\.h(\d+))?)?", place)):
        raise TermError(f"{name!r} names no layer or head: layer 3 is '{term}.3', and its head 5 is '{term}.3.h5'.")
    layer, head = match.groups()
    return term, None if layer is None else int(layer), None if head is None else int(head)


def has_head(name: str) -> bool:
    """Return whether a name is that of a single head.

    >>> has_head("value.3.h5"), has_head("value.3")
    (True, False)
    """
    return parsed(name)[2] is not None


def without_layers(names: Iterable[str]) -> list[str]:
    """Return each term once, without the index of a layer or head.

    >>> without_layers(["value.3", "query", "value.4.h0"])
    ['value', 'query']
    """
    return list(dict.fromkeys(split_name(name)[0] for name in names))


def role(term: str) -> str:
    """Return a term without its tower.

    >>> role("vision_model.value"), role("value")
    ('value', 'value')
    """
    return term.rpartition(".")[2]


def in_towers(names: Iterable[str], terms: Iterable[str]) -> list[str]:
    """Return names with the tower of each: a term that several towers have stands for that of all.

    >>> in_towers(["value.3", "left.key"], ["left.key", "left.value", "right.key", "right.value"])
    ['left.value.3', 'right.value.3', 'left.key']

    Args:
        names: Such as ``value``, ``value.3`` or ``vision_model.value``.
        terms: The terms that there are. Names of others are returned as they are.
    """
    terms = list(terms)
    found: dict[str, None] = {}
    for name in names:
        term, place = split_name(name)
        towers = [] if term in terms else [known for known in terms if role(known) == term]
        found |= dict.fromkeys(f"{known}.{place}" if place else known for known in towers or [term])
    return list(found)
