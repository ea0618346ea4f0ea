"""The record of an approach, in the table and in the file."""

import io
import json
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from beft_lightning.scoring import record
from beft_lightning.scoring.race.entrant import Lap
from beft_lightning.scoring.race.report import race_table
from beft_lightning.scoring.race.result import Placed, RaceCost, RaceResult
from beft_lightning.scoring.race.scores import RaceScores
from beft_lightning.scoring.report import ranking_table
from beft_lightning.scoring.score_table import BiasScores, TermScore

STUDY = {"date": "2026-01-31", "command": "make study", "chance": 0.04, "approaches": {}}
WORDS = "picked the best term in 7 of 10 trials, mean regret 0.011; a random term has 0.040 (2026-01-31)"


def shown(table: Any) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(table)
    return " ".join(console.export_text().split())


def scores(approach: str) -> tuple[Any, Any]:
    """Return scores of an approach, and their table."""
    if approach == "race":
        result = RaceResult([Placed("value", 1e-2, [Lap(4, [1.0, 1.1])])], [2.0, 2.0], RaceCost(4, 4, 1.0, None))
        raced = RaceScores("bert", result, {"value": 8})
        return raced, race_table(raced)
    scored = BiasScores(approach, "bert", 1, {"value": TermScore([0.5], inert=False, parameters=8)})
    return scored, ranking_table(scored)


@pytest.mark.parametrize("approach", ["race", "gradient"])
def test_a_record_is_shown_with_the_scores(approach: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"picks": 10, "best": 7, "tied": 1, "regret": 0.011}
    monkeypatch.setattr(record, "_shipped", lambda: json.dumps({**STUDY, "approaches": {approach: entry}}))
    found, table = scores(approach)
    assert f"In the study, {approach} {WORDS}." in shown(table)
    content = found.to_dict()
    assert content["record"] == {"date": "2026-01-31", "picks": 10, "best": 7, "regret": 0.011, "chance": 0.04}
    assert type(found).from_dict(content) == found


@pytest.mark.parametrize("approach", ["race", "gradient"])
def test_without_a_record_nothing_is_shown(approach: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "_shipped", lambda: json.dumps(STUDY))
    found, table = scores(approach)
    assert "study" not in shown(table)
    assert "record" not in found.to_dict()


def test_the_package_ships_a_record_that_can_be_read() -> None:
    root = Path(record.__file__).parents[2]
    shipped = root / "beft_lightning" / "scoring" / "record.json"
    for found in record.read_records(shipped.read_text(encoding="utf-8")).values():
        assert 0 <= found.best <= found.picks
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert any(fnmatch("scoring/record.json", pattern) for pattern in patterns["beft_lightning"])
