"""The table of scores."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from beft_lightning.errors import ScoringError
from beft_lightning.scoring.score_table import BiasScores, TermScore


def test_a_terms_score_is_the_mean_over_its_layers(scores: BiasScores) -> None:
    assert scores.terms["value"].score == pytest.approx(0.4)


def test_an_inert_term_ranks_last(scores: BiasScores) -> None:
    assert scores.ranking == ["value", "query", "key"]
    assert scores.live == ["value", "query"]


def test_an_unknown_approach_is_an_error(scores: BiasScores) -> None:
    content = {**scores.to_dict(), "approach": "guess"}
    with pytest.raises(ScoringError, match="no scoring approach 'guess'; choose one of: projection, magnitude"):
        BiasScores.from_dict(content)


def test_ties_are_broken_the_same_way_whatever_the_order() -> None:
    entry = TermScore(layers=[0.5], inert=False, parameters=1)
    for names in (["value", "query"], ["query", "value"]):
        assert BiasScores("fisher", "bert", 1, dict.fromkeys(names, entry)).ranking == ["query", "value"]


def test_the_json_file_has_the_documented_content_and_reads_back(scores: BiasScores, tmp_path: Path) -> None:
    scores.save(tmp_path)
    content = json.loads((tmp_path / "scores.json").read_text())
    content.pop("record", None)  # Depends on the study.
    assert list(content) == ["approach", "model_type", "steps", "terms", "ranking", "selected"]
    assert content["terms"]["value"] == {
        "score": pytest.approx(0.4),
        "margin": pytest.approx(0.2),
        "spread": None,
        "layers": [0.2, 0.6],
        "inert": False,
        "parameters": 8,
        "history": [],
    }
    assert content["ranking"] == ["value", "query", "key"]
    assert BiasScores.load(tmp_path / "scores.json") == scores


@pytest.mark.parametrize("history", [[0.1, 0.2], ["a"] * 4, "1234567"])
def test_a_history_has_a_number_for_each_batch(history: Any, scores: BiasScores) -> None:
    content = scores.to_dict()
    content["terms"]["value"]["history"] = history
    with pytest.raises(ScoringError, match="not a table of bias scores"):
        BiasScores.from_dict(content)


def test_the_csv_file_holds_the_same_numbers(scores: BiasScores, tmp_path: Path) -> None:
    scores.save(tmp_path)
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["term"] for row in rows] == scores.ranking
    assert float(rows[0]["layer_1"]) == 0.6
    assert rows[0]["symbol"] == "b_v"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting property name"),
        ('{"approach": "race"}', "these are the scores of a race: set approach to 'race'"),
        ("[]", "not a table of bias scores"),
        ('{"approach": "projection"}', "not a table of bias scores: KeyError 'terms'"),
        (
            '{"approach": "fisher", "model_type": "bert", "steps": 1, "selected": [], '
            '"terms": {"value": {"layers": [NaN], "inert": false, "parameters": 1}}}',
            "not a table of bias scores: every term needs a finite score",
        ),
    ],
)
def test_a_file_without_scores_is_an_error(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    path.write_text(text)
    with pytest.raises(ScoringError, match=rf"scores.json: {message}.* Make a new file"):
        BiasScores.load(path)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ScoringError, match="cannot read the scores"):
        BiasScores.load(tmp_path / "none.json")
