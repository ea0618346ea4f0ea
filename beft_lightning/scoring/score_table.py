"""The table of scores, term by layer: its order, its margins, and its files."""

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
from beft_lightning.bias.names import role
from beft_lightning.errors import ScoringError
from beft_lightning.files import write_text_atomically
from beft_lightning.scoring.approaches import approach_named
from beft_lightning.scoring.margin import Margin, margin_spread
from beft_lightning.scoring.record import record_of


@dataclass(frozen=True)
class TermScore:
    """One term's scores.

    Args:
        layers: Score of each layer, from the first to the last.
        inert: Whether the term cannot change the model's output.
        parameters: Number of values in the term, over all layers.
        history: The term's score after each batch; empty if unknown.
        heads: Scores of the heads of each layer, where they were asked for; else empty.
    """

    layers: list[float]
    inert: bool
    parameters: int
    history: list[float] = field(default_factory=list)
    heads: list[list[float]] = field(default_factory=list)

    @property
    def score(self) -> float:
        """The mean over the layers."""
        return math.fsum(self.layers) / len(self.layers)


@dataclass
class BiasScores:
    """Scores of a model's bias terms.

    Args:
        approach: Name of the approach, a key of :data:`~beft_lightning.scoring.approaches.APPROACHES`.
        model_type: The model's type as transformers names it.
        steps: Number of batches the scores come from.
        terms: Term name -> its scores.
        selected: Names of the selected terms (``"value"``), or single layers (``"value.3"``) or heads of terms
            (``"value.3.h5"``).
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
    def live(self) -> list[str]:
        """Terms that can change the model's output, from best to worst."""
        return [term for term in self.ranking if not self.terms[term].inert]

    @property
    def margins(self) -> dict[str, Margin]:
        """The margin of each live term over the next live one in the ranking."""
        averages = approach_named(self.approach).averages
        margins = {}
        for term, other in pairwise(self.live):
            first, second = self.terms[term], self.terms[other]
            spread = margin_spread(first.history, second.history, averages=averages)
            margins[term] = Margin(other, first.score - second.score, spread)
        return margins

    @property
    def noise(self) -> float:
        """The score of batches without anything in common, see :meth:`Approach.noise`."""
        return approach_named(self.approach).noise(self.steps)

    @property
    def spreads(self) -> dict[str, float | None]:
        """Two standard errors of each term's lead over noise; ``None`` where its history is not known."""
        approach = approach_named(self.approach)
        histories = {term: entry.history for term, entry in self.terms.items()}
        noise = {term: [approach.noise(i) for i in range(1, len(one) + 1)] for term, one in histories.items()}
        return {t: margin_spread(one, noise[t], averages=approach.averages) for t, one in histories.items()}

    @property
    def near_tie(self) -> str | None:
        """The last selected term, if its margin is 0 or within its spread; ``None`` if not, or for single layers."""
        if not self.selected or not set(self.selected) <= set(self.terms):
            return None
        last = max(self.selected, key=self.ranking.index)
        if (margin := self.margins.get(last)) is None:
            return None
        equal = math.isclose(self.terms[last].score, self.terms[margin.over].score)
        return last if equal or margin.is_near_tie else None

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``scores.json``: plain types only."""
        margins = {term: {"margin": m.difference, "spread": m.spread} for term, m in self.margins.items()}
        terms = {t: {"score": scores.score, **margins.get(t, {}), **asdict(scores)} for t, scores in self.terms.items()}
        for entry in terms.values():
            if not entry["heads"]:
                del entry["heads"]
        record = record_of(self.approach)
        return {
            "approach": self.approach,
            **({"record": record.to_dict()} if record else {}),
            "model_type": self.model_type,
            "steps": self.steps,
            "terms": terms,
            "ranking": self.ranking,
            "selected": self.selected,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "BiasScores":
        """Read the content of a ``scores.json``, also of the first version.

        Raises:
            ScoringError: If a field is missing, a score is not a finite number, the approach is unknown, or histories
                differ in length.
        """
        try:
            terms = {
                term: TermScore(
                    layers=[float(score) for score in entry["layers"]],
                    inert=bool(entry["inert"]),
                    parameters=int(entry["parameters"]),
                    # The first version called it "course".
                    history=[float(score) for score in entry.get("history", entry.get("course", []))],
                    heads=[[float(score) for score in heads] for heads in entry.get("heads", [])],
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
        numbers = (numbers for e in terms.values() for numbers in (e.layers, e.history, *e.heads))
        finite = all(math.isfinite(score) for of_one in numbers for score in of_one)
        if not (finite and terms and all(entry.layers for entry in terms.values())):
            raise ScoringError("not a table of bias scores: every term needs a finite score for each layer.")
        if any(len(entry.heads) not in (0, len(entry.layers)) for entry in terms.values()):
            raise ScoringError("not a table of bias scores: heads need a list of scores for each layer.")
        approach_named(scores.approach)
        if {len(entry.history) for entry in terms.values()} not in ({0}, {scores.steps}):
            raise ScoringError(f"not a table of bias scores: a term's history is not one of {scores.steps} batches.")
        return scores

    def to_csv(self) -> str:
        """Return the table as CSV, best term first: term, symbol, score, inert, parameters, layer_0, ...

        Scores of heads, if there are any, stand behind: layer_0_h0, layer_0_h1, ...
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        width = max(len(scores.layers) for scores in self.terms.values())
        heads = max((len(heads) for scores in self.terms.values() for heads in scores.heads), default=0)
        layers = [f"layer_{i}" for i in range(width)]
        names = [*layers, *(f"{layer}_h{j}" for layer in layers for j in range(heads))]
        writer.writerow(["term", "symbol", "score", "inert", "parameters", *names])
        for term in self.ranking:
            scores = self.terms[term]
            symbol = TERM_SYMBOLS.get(term, term)
            cells = [*scores.layers, *[""] * (width - len(scores.layers))] if heads else scores.layers
            of_heads = [score for of_one in scores.heads for score in (*of_one, *[""] * (heads - len(of_one)))]
            writer.writerow([term, symbol, scores.score, scores.inert, scores.parameters, *cells, *of_heads])
        return text.getvalue()

    def save(self, folder: str | Path, name: str = "scores") -> None:
        """Write ``scores.json`` and ``scores.csv`` into ``folder``, or files of another name."""
        write_text_atomically(Path(folder) / f"{name}.json", json.dumps(self.to_dict(), indent=2) + "\n")
        write_text_atomically(Path(folder) / f"{name}.csv", self.to_csv())

    @classmethod
    def load(cls, path: str | Path) -> "BiasScores":
        """Read a ``scores.json``.

        Raises:
            ScoringError: If the file is missing, is no JSON, or does not hold scores.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if isinstance(content, dict) and content.get("approach") == "race":
                raise ScoringError("these are the scores of a race: set approach to 'race'.")
            return cls.from_dict(content)
        except OSError as error:
            raise ScoringError(f"{path}: cannot read the scores ({error.strerror}).") from error
        except (ValueError, ScoringError) as error:
            raise ScoringError(f"{path}: {error} Make a new file with `python -m beft_lightning score`.") from error

    @classmethod
    def load_for(
        cls, path: str | Path, approach: str, model_type: str, layers: Mapping[str, int], per_head: bool = False
    ) -> "BiasScores":
        """Read the scores of some terms of a model from a ``scores.json``.

        Args:
            path: The file.
            approach: The approach that the scores must come from.
            model_type: The type that the model must have.
            layers: Candidate term -> number of layers that the model has it in.
            per_head: Whether the scores of single heads are needed.

        Raises:
            ScoringError: If the scores are those of another model, approach or term.
        """
        scores = cls.load(path)
        if scores.model_type != model_type:
            raise ScoringError(f"{path}: these scores are of a {scores.model_type} model, this one is {model_type}.")
        if missing := [term for term in layers if term not in scores.terms]:
            raise ScoringError(
                f"{path}: no score for {', '.join(missing)}; it has: {', '.join(scores.terms)}. "
                "Name only those as candidates, or score again."
            )
        if scores.approach != approach:
            raise ScoringError(
                f"{path}: these are {scores.approach} scores, and approach is {approach!r}. Set approach to "
                f"{scores.approach!r}, or score again."
            )
        if wrong := [term for term, count in layers.items() if len(scores.terms[term].layers) != count]:
            raise ScoringError(f"{path}: {wrong[0]!r} has scores of another number of layers than this model has.")
        if per_head and (without := [term for term in layers if not scores.terms[term].heads]):
            raise ScoringError(f"{path}: no scores of single heads of {', '.join(without)}: score again with per_head.")
        scores.terms = {term: scores.terms[term] for term in layers}
        return scores


def _place(term: str) -> int:
    """Return a term's place in the list of terms, to break ties the same way everywhere."""
    names = list(TERM_SYMBOLS)
    return names.index(role(term)) if role(term) in names else len(names)
