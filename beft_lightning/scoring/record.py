"""The record of the approaches in the study: how often each picked the best term."""

import json
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Record:
    """How an approach did in the study (``python -m benchmarks.selection``).

    Args:
        date: Day of the study's report.
        picks: Number of its picks: one for each setting and seed.
        best: Number of those that ended best of all terms.
        regret: Mean difference of accuracy between the best term and the pick.
        chance: The same of a term picked at random.
    """

    date: str
    picks: int
    best: int
    regret: float
    chance: float

    def in_words(self) -> str:
        """Return the record as a person reads it."""
        picks = f"picked the best term in {self.best} of {self.picks} trials"
        return f"{picks}, mean regret {self.regret:.3f}; a random term has {self.chance:.3f} ({self.date})"

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, ready for JSON."""
        return asdict(self)


def record_of(approach: str) -> Record | None:
    """Return the record of an approach; ``None`` where the study has none.

    Args:
        approach: Name of an approach, or ``race``.
    """
    return read_records(_shipped()).get(approach)


def read_records(text: str) -> dict[str, Record]:
    """Return the records in a ``record.json`` of the study, by approach.

    >>> race = '{"picks": 10, "best": 7, "regret": 0.011}'
    >>> content = '{"date": "2026-01-31", "chance": 0.04, "approaches": {"race": ' + race + "}}"
    >>> read_records(content)["race"].in_words()
    'picked the best term in 7 of 10 trials, mean regret 0.011; a random term has 0.040 (2026-01-31)'

    Args:
        text: The file's content.
    """
    content = json.loads(text)
    return {
        name: Record(content["date"], entry["picks"], entry["best"], entry["regret"], content["chance"])
        for name, entry in content["approaches"].items()
    }


@cache
def _shipped() -> str:
    return files("beft_lightning.scoring").joinpath("record.json").read_text(encoding="utf-8")
