"""Scores that several tests of this folder use."""

import pytest

from beft_lightning.scoring.score_table import BiasScores, TermScore


@pytest.fixture
def scores() -> BiasScores:
    """Scores of three terms: value is the best live one, key is inert."""
    return BiasScores(
        approach="projection",
        model_type="bert",
        steps=4,
        terms={
            "query": TermScore(layers=[0.1, 0.3], inert=False, parameters=8),
            "key": TermScore(layers=[0.9, 0.9], inert=True, parameters=8),
            "value": TermScore(layers=[0.2, 0.6], inert=False, parameters=8),
        },
        selected=["value"],
    )
