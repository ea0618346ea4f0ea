"""The table of scores, term by layer: its order, its choice, and its files."""

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from beft_lightning.bias.architecture import TERM_SYMBOLS
from beft_lightning.errors import ScoringError
from beft_lightning.files import write_text_atomically
from beft_lightning.scoring.margin import Margin, margin_spread


@dataclass(frozen=True)
class TermScore:
    """One term's scores.

    Args:
        layers: Score of each layer, from the first to the last.
        inert: Whether the term cannot change the model's output.
        parameters: Number of values in the term, over all layers.
        course: The term's score after each batch; empty if not known.
    """

    layers: list[float]
    inert: bool
    parameters: int
    course: list[float] = field(default_factory=list)

    @property
    def score(self) -> float:
        """The term's score: the mean over its layers."""
        return math.fsum(self.layers) / len(self.layers)


@dataclass
class BiasScores:
    """Scores of a model's bias terms.

    Args:
        approach: ``projection``, ``magnitude``, ``fisher`` or ``sample_fisher``.
        model_type: The model's type as transformers names it.
        steps: Number of batches the scores come from.
        terms: Term name -> its scores.
        selected: What was chosen: terms (``"value"``) or single layers of terms (``"value.3"``).
    """

    approach: str
    model_type: str
    steps: int
    terms: dict[str, TermScore]
    selected: list[str] = field(default_factory=list)

    @property
    def ranking(self) -> list[str]:
        """Term names from best to worst; inert terms come last whatever their score."""
        return sorted(self.terms, key=lambda term: (self.terms[term].inert, -self.terms[term].score, _place(term)))

    @property
    def margins(self) -> dict[str, Margin]:
        """Each live term's lead over the next live one in the ranking."""
        live = [term for term in self.ranking if not self.terms[term].inert]
        margins = {}
        for term, other in pairwise(live):
            first, second = self.terms[term], self.terms[other]
            mean = self.approach.endswith("fisher")
            margins[term] = Margin(
                other, first.score - second.score, margin_spread(first.course, second.course, mean=mean)
            )
        return margins

    @property
    def near_tie(self) -> str | None:
        """The term that was only just selected: the last one, if other batches might well have chosen the next.

        ``None`` if there is no such term, or single layers were selected.
        """
        if not self.selected or not set(self.selected) <= set(self.terms):
            return None
        last = max(self.selected, key=self.ranking.index)
        return last if last in self.margins and self.margins[last].is_near_tie else None

    def select(self, keep: int = 1, *, per_layer: bool = False, budget: int | None = None) -> list[str]:
        """The best terms, never an inert one.

        Args:
            keep: How many to choose.
            per_layer: Choose single layers of terms (``"value.3"``) instead of whole terms.
            budget: Instead of ``keep``: choose single layers of terms, from the best to the worst each that fits, with
                at most this many values in all.

        Raises:
            ScoringError: If fewer than ``keep`` are live, or none fits the budget.
        """
        live = [term for term in self.ranking if not self.terms[term].inert]
        if per_layer or budget is not None:
            scored = [(f"{t}.{i}", s) for t in live for i, s in enumerate(self.terms[t].layers)]
            # The sort is stable, so equal scores keep the terms' order.
            live = [name for name, _ in sorted(scored, key=lambda item: -item[1])]
        if budget is not None:
            return self._within(budget, live)
        if keep < 1 or keep > len(live):
            inert = [term for term, scores in self.terms.items() if scores.inert]
            raise ScoringError(
                f"cannot keep {keep} of the {len(live)} selectable "
                f"{'layers of terms' if per_layer else 'terms'} ({', '.join(live) or 'none'})"
                + (f"; inert and therefore left out: {', '.join(inert)}" if inert else "")
                + ". Name more candidate terms, keep fewer, or name the terms outright with approach 'fixed'."
            )
        return live[:keep]

    def _within(self, budget: int, names: list[str]) -> list[str]:
        """Of single layers of terms, in this order, each that still fits the budget."""
        # The layers of a term have one size.
        sizes = {term: scores.parameters // len(scores.layers) for term, scores in self.terms.items()}
        chosen = []
        for name in names:
            size = sizes[name.partition(".")[0]]
            if size <= budget:
                chosen.append(name)
                budget -= size
        if not chosen:
            live = {name.partition(".")[0] for name in names}
            raise ScoringError(
                f"a budget of {budget} values is too small for any layer of any live term ("
                + (", ".join(f"{term}: {sizes[term]}" for term in self.terms if term in live) or "there is none")
                + ")."
            )
        return chosen

    def to_dict(self) -> dict[str, Any]:
        """The content of ``scores.json``: plain types only."""
        margins = {term: {"margin": lead.margin, "spread": lead.spread} for term, lead in self.margins.items()}
        terms = {t: {"score": scores.score, **margins.get(t, {}), **asdict(scores)} for t, scores in self.terms.items()}
        return {
            "approach": self.approach,
            "model_type": self.model_type,
            "steps": self.steps,
            "terms": terms,
            "ranking": self.ranking,
            "selected": self.selected,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "BiasScores":
        """The inverse of :meth:`to_dict`.

        Raises:
            ScoringError: If a field is missing, a score is not a finite number, or courses differ in length.
        """
        try:
            terms = {
                term: TermScore(
                    layers=[float(score) for score in entry["layers"]],
                    inert=bool(entry["inert"]),
                    parameters=int(entry["parameters"]),
                    course=[float(score) for score in entry.get("course", [])],
                )
                for term, entry in content["terms"].items()
            }
            scores = cls(
                approach=str(content["approach"]),
                model_type=str(content["model_type"]),
                steps=int(content["steps"]),
                terms=terms,
                selected=list(content["selected"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ScoringError(f"not a table of bias scores: {type(error).__name__} {error}.") from error
        finite = all(math.isfinite(score) for e in terms.values() for score in (*e.layers, *e.course))
        if not (finite and terms and all(entry.layers for entry in terms.values())):
            raise ScoringError("not a table of bias scores: every term needs a finite score for each layer.")
        if {len(entry.course) for entry in terms.values()} not in ({0}, {scores.steps}):
            raise ScoringError(f"not a table of bias scores: a term's course is not one of {scores.steps} batches.")
        return scores

    def to_csv(self) -> str:
        """The table as CSV, best term first: term, symbol, score, inert, parameters, layer_0, layer_1, ..."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        width = max(len(scores.layers) for scores in self.terms.values())
        writer.writerow(["term", "symbol", "score", "inert", "parameters", *(f"layer_{i}" for i in range(width))])
        for term in self.ranking:
            scores = self.terms[term]
            symbol = TERM_SYMBOLS.get(term, term)
            writer.writerow([term, symbol, scores.score, scores.inert, scores.parameters, *scores.layers])
        return text.getvalue()

    def save(self, folder: str | Path) -> None:
        """Write ``scores.json`` and ``scores.csv`` into ``folder``."""
        write_text_atomically(Path(folder) / "scores.json", json.dumps(self.to_dict(), indent=2) + "\n")
        write_text_atomically(Path(folder) / "scores.csv", self.to_csv())

    @classmethod
    def load(cls, path: str | Path) -> "BiasScores":
        """Read a ``scores.json``.

        Raises:
            ScoringError: If the file is missing, is no JSON, or does not hold scores.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls.from_dict(content)
        except OSError as error:
            raise ScoringError(f"{path}: cannot read the scores ({error.strerror}).") from error
        except ValueError as error:
            raise ScoringError(f"{path}: {error} Make a new file with `python -m beft_lightning score`.") from error


def _place(term: str) -> int:
    """A term's place in the table of terms, to break ties the same way everywhere."""
    names = list(TERM_SYMBOLS)
    return names.index(term) if term in names else len(names)
