"""The selection rule: which terms, or single layers or heads of terms, are trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from beft_lightning.bias.names import role, split_name
from beft_lightning.errors import ScoringError
from beft_lightning.scoring.approaches import APPROACHES
from beft_lightning.scoring.score_table import BiasScores, TermScore

#: Term -> for each of its layers, the number of values of each of its heads, or of all.
Sizes = Mapping[str, Sequence[Sequence[int]]]


@dataclass(frozen=True)
class SelectionRule:
    """Select the best terms, or the best single layers or heads of terms, but never an inert term.

    Args:
        keep: Number of terms, of layers, or of heads to select.
        per_layer: Select single layers of terms (``"value.3"``) instead of whole terms.
        budget: Instead of ``keep``: select single layers, or heads, of terms with at most this many values in all, from
            the best to the worst each that still fits.
        per_head: Select single heads of terms (``"value.3.h5"``).
    """

    keep: int = 1
    per_layer: bool = False
    budget: int | None = None
    per_head: bool = False

    def __post_init__(self) -> None:
        """Check that it says one thing.

        Raises:
            ScoringError: If single layers and single heads are asked for.
        """
        if self.per_layer and self.per_head:
            raise ScoringError("per_layer and per_head ask for single layers and for single heads: leave out one.")

    @property
    def of_layers(self) -> bool:
        """Whether single layers are selected."""
        return not self.per_head and (self.per_layer or self.budget is not None)

    @property
    def of_terms(self) -> bool:
        """Whether whole terms are selected."""
        return not (self.of_layers or self.per_head)

    @property
    def unit(self) -> str:
        """What is selected, in words."""
        return "heads of terms" if self.per_head else "layers of terms" if self.of_layers else "terms"

    def select(self, scores: BiasScores, sizes: Sizes | None = None) -> list[str]:
        """Return the selected names, best first.

        Args:
            scores: The scores.
            sizes: How many values a budget has to pay for; by default, all layers of a term have as many.

        Raises:
            ScoringError: If fewer than ``keep`` are live, or none fits the budget.
        """
        live = scores.live
        if not self.of_terms:
            scored = [pair for term in live for pair in self._scored(term, scores.terms[term])]
            # The sort is stable, so equal scores keep the terms' order.
            live = [name for name, _ in sorted(scored, key=lambda item: -item[1])]
        if self.budget is not None:
            known = self._values(sizes or _even_sizes(scores.terms))
            chosen = _within(self.budget, {name: known[name] for name in live})
            if not chosen:
                least = {
                    term: [size for name, size in known.items() if split_name(name)[0] == term]
                    for term in scores.terms
                    if term in scores.live
                }
                raise ScoringError(
                    f"a budget of {self.budget} values is too small for any of the live {self.unit} ("
                    + (", ".join(f"{term}: {min(values)}" for term, values in least.items()) or "none")
                    + ")."
                )
            return chosen
        if self.keep < 1 or self.keep > len(live):
            inert = [term for term, entry in scores.terms.items() if entry.inert]
            raise ScoringError(
                f"cannot keep {self.keep} of the {len(live)} selectable "
                f"{self.unit} ({', '.join(live) or 'none'})"
                + (f"; inert and therefore left out: {', '.join(inert)}" if inert else "")
                + ". Name more candidate terms, keep fewer, or name the terms outright with approach 'fixed'."
            )
        return live[: self.keep]

    def _scored(self, term: str, entry: TermScore) -> list[tuple[str, float]]:
        """Return the names of a term's layers or heads, with their scores."""
        if self.per_head:
            return [(f"{term}.{i}.h{j}", s) for i, heads in enumerate(entry.heads) for j, s in enumerate(heads)]
        return [(f"{term}.{i}", score) for i, score in enumerate(entry.layers)]

    def largest(self, sizes: Sizes) -> list[str]:
        """Return the selection with the most values that is possible, whatever the scores."""
        candidates = dict(sorted(self._values(sizes).items(), key=lambda item: -item[1]))
        return list(candidates)[: self.keep] if self.budget is None else _within(self.budget, candidates)

    def _values(self, sizes: Sizes) -> dict[str, int]:
        """Return the number of values of each term, layer or head that can be selected, by name."""
        if self.of_terms:
            return {term: sum(map(sum, layers)) for term, layers in sizes.items()}
        places = [(f"{term}.{i}", heads) for term, layers in sizes.items() for i, heads in enumerate(layers)]
        if self.of_layers:
            return {name: sum(heads) for name, heads in places}
        return {f"{name}.h{j}": size for name, heads in places for j, size in enumerate(heads)}

    def describe(self, terms: Sequence[str]) -> str:
        """Return the rule in words, for example ``2 layers of query, value``."""
        if self.budget is not None:
            return f"at most {self.budget:,} values of {'heads of ' * self.per_head}{', '.join(terms)}"
        return f"{self.keep} {'heads ' * self.per_head or 'layers ' * self.per_layer}of {', '.join(terms)}"


def value_alone(approach: str, rule: SelectionRule, terms: Sequence[str], zero: Sequence[str]) -> list[str]:
    """Return the value bias (of each tower), the paper's finding, where all candidates start at zero.

    Args:
        approach: Name of an approach that compares with pretrained biases.
        rule: How many terms or layers are wanted.
        terms: The candidate terms.
        zero: Those of them that start at zero.

    Raises:
        ScoringError: If only some start at zero, or more is wanted than one term.
    """
    if set(zero) != set(terms):
        raise ScoringError(
            f"the {approach} score cannot compare {', '.join(zero)}, which start at zero, with the pretrained "
            f"{', '.join(term for term in terms if term not in zero)}: {other_approaches()}."
        )
    values = [term for term in terms if role(term) == "value"]
    if not values or rule != SelectionRule():
        raise ScoringError(f"the {approach} score cannot rank biases that all start at zero: {other_approaches()}.")
    return values


def other_approaches() -> str:
    """Return a remedy in words: the approaches that can rank biases that start at zero."""
    others = [repr(name) for name, approach in APPROACHES.items() if not approach.needs_pretrained_biases]
    return f"use approach {', '.join(others[:-1])} or {others[-1]}, or name the terms with 'fixed'"


def _even_sizes(terms: Mapping[str, TermScore]) -> dict[str, list[list[int]]]:
    sizes = {}
    for term, entry in terms.items():
        heads = [len(of_layer) for of_layer in entry.heads] or [1] * len(entry.layers)
        sizes[term] = [[entry.parameters // sum(heads)] * count for count in heads]
    return sizes


def _within(budget: int, sizes: Mapping[str, int]) -> list[str]:
    """Return the names, in their order, each of which still fits the budget."""
    chosen = []
    for name, size in sizes.items():
        if size <= budget:
            chosen.append(name)
            budget -= size
    return chosen
