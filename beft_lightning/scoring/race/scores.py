"""The result of a race between bias terms, and its files."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Self

from beft_lightning.errors import ScoringError
from beft_lightning.files import write_text_atomically
from beft_lightning.scoring.race.result import Placed, RaceResult
from beft_lightning.scoring.record import record_of


@dataclass
class RaceScores:
    """The result of a race between bias terms, in the form of the other approaches' scores.

    Args:
        model_type: The model's type as transformers names it.
        result: The result of the race.
        parameters: Candidate term -> number of its values.
        inert: Candidates that cannot change the model's output, which did not run.
        selected: Names of the selected terms.
    """

    approach: ClassVar[str] = "race"

    model_type: str
    result: RaceResult
    parameters: dict[str, int]
    inert: list[str] = field(default_factory=list)
    selected: list[str] = field(default_factory=list)

    @property
    def ranking(self) -> list[str]:
        """Term names from best to worst; inert terms come last."""
        return [*self.result.best_of_terms, *self.inert]

    def score(self, entrant: Placed) -> float | None:
        """Return by how much the held-out loss of an entrant has fallen; ``None`` if it has diverged."""
        return fmean(self.result.initial) - entrant.loss if math.isfinite(entrant.loss) else None

    @property
    def scores(self) -> dict[str, float]:
        """Term -> score of its best entrant, for terms that ran and have not diverged."""
        scores = {term: self.score(entrant) for term, entrant in self.result.best_of_terms.items()}
        return {term: score for term, score in scores.items() if score is not None}

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``scores.json``: plain types only."""
        winner, ties = self.result.winner, self.result.ties
        terms: dict[str, Any] = {}
        for term, entrant in self.result.best_of_terms.items():
            terms[term] = {
                "score": self.score(entrant),
                "rate": entrant.rate,
                "batches": entrant.batches,
                "tie": term in ties,
                "inert": False,
                "parameters": self.parameters[term],
            }
        for term in self.inert:
            terms[term] = {"score": 0.0, "inert": True, "parameters": self.parameters[term]}
        record = record_of(self.approach)
        return {
            "approach": self.approach,
            **({"record": record.to_dict()} if record else {}),
            "model_type": self.model_type,
            "steps": winner.batches,
            "rate": winner.rate,
            "ties": ties,
            "terms": terms,
            "ranking": self.ranking,
            "selected": self.selected,
            "race": self.result.to_dict(),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` gives.

        Raises:
            ScoringError: If it is something else.
        """
        try:
            terms = content["terms"]
            scores = cls(
                model_type=str(content["model_type"]),
                result=RaceResult.from_dict(content["race"]),
                parameters={term: int(entry["parameters"]) for term, entry in terms.items()},
                inert=[term for term, entry in terms.items() if entry["inert"]],
                selected=list(content["selected"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ScoringError(f"not the scores of a race: {type(error).__name__} {error}.") from error
        if {*scores.ranking} != {*scores.parameters}:
            raise ScoringError("not the scores of a race: its terms are not those that ran.")
        return scores

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a ``scores.json``.

        Args:
            path: The file.

        Raises:
            ScoringError: If the file cannot be read, or is of another approach.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if not isinstance(content, dict) or content.get("approach") != cls.approach:
                raise ScoringError("these are not the scores of a race, and approach is 'race'.")
            return cls.from_dict(content)
        except OSError as error:
            raise ScoringError(f"{path}: cannot read the scores ({error.strerror}).") from error
        except (ValueError, ScoringError) as error:
            raise ScoringError(f"{path}: {error} Make a new file with `python -m beft_lightning score`.") from error

    @classmethod
    def load_for(cls, path: str | Path, model_type: str, candidates: Sequence[str]) -> Self:
        """Read the result of an earlier race between the same terms of the same model.

        Args:
            path: A ``scores.json``.
            model_type: The type that the model must have.
            candidates: The candidate terms.

        Raises:
            ScoringError: If the file cannot be read, or is of another approach, model or other terms.
        """
        scores = cls.load(path)
        if scores.model_type != model_type:
            raise ScoringError(f"{path}: this race was on a {scores.model_type} model, this one is {model_type}.")
        if {*scores.parameters} != {*candidates}:
            raise ScoringError(
                f"{path}: this race was between {', '.join(scores.parameters)}, and the candidates are "
                f"{', '.join(candidates)}: name the same ones, or race again."
            )
        return scores

    def to_csv(self) -> str:
        """Return each entrant's course as CSV: term, rate, batches, held-out loss; best entrant first."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["term", "rate", "batches", "loss"])
        for entrant in self.result.ranking:
            writer.writerows([entrant.term, entrant.rate, lap.batches, lap.loss] for lap in entrant.laps)
        return text.getvalue()

    def save(self, folder: str | Path, name: str = "scores") -> None:
        """Write ``scores.json`` and ``scores.csv`` into ``folder``, or files of another name."""
        write_text_atomically(Path(folder) / f"{name}.json", json.dumps(self.to_dict(), indent=2) + "\n")
        write_text_atomically(Path(folder) / f"{name}.csv", self.to_csv())
