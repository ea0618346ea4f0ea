"""The picture of scores."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from beft_lightning.pictures import save_picture, score_picture
from beft_lightning.scoring.score_table import BiasScores, TermScore

HISTORY = {"value": [0.1, 0.4], "query": [0.1, 0.1], "key": [0.0, 0.0]}


@pytest.fixture
def scores() -> BiasScores:
    terms = {
        "key": TermScore(layers=[0.0, 0.0], inert=True, parameters=64, history=HISTORY["key"]),
        "value": TermScore(layers=[0.2, 0.6], inert=False, parameters=64, history=HISTORY["value"]),
        "query": TermScore(layers=[0.1, 0.1], inert=False, parameters=64, history=HISTORY["query"]),
    }
    return BiasScores("projection", "bert", 2, terms, selected=["value.1"])


def test_layers_count_from_0_and_the_selected_one_is_outlined(scores: BiasScores) -> None:
    layers: Any = score_picture(scores).axes[0]
    assert [label.get_text() for label in layers.get_xticklabels()] == ["0", "1"]
    assert [label.get_text() for label in layers.get_yticklabels()] == ["value (selected)", "query", "key (inert)"]
    np.testing.assert_array_equal(layers.images[0].get_array(), [[0.2, 0.6], [0.1, 0.1], [0.0, 0.0]])
    outlined = [patch for patch in layers.patches if isinstance(patch, Rectangle) and not patch.get_hatch()]
    assert [patch.get_xy() for patch in outlined] == [(0.5, -0.5)]  # around layer 1 of the first row
    hatched = [patch for patch in layers.patches if patch.get_hatch()]
    assert [(patch.get_xy(), patch.get_width()) for patch in hatched] == [((-0.5, 1.5), 2)]  # the inert term's row


def test_bars_have_the_scores_and_their_spread_over_the_batches(scores: BiasScores) -> None:
    bars: Any = score_picture(scores).axes[1]
    widths = [bar.get_width() for bar in bars.patches if isinstance(bar, Rectangle)]
    assert widths == pytest.approx([0.4, 0.1, 0.0])
    # Two batches add 0.1 and 0.3 to value: two standard errors of the sum are 2 * sqrt(2) * 0.2 / sqrt(2).
    spread = scores.spreads
    assert spread["value"] == pytest.approx(0.4)
    ends = bars.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose(np.sort(ends[:, 0]), [0.0, 0.8], atol=1e-12)


def test_the_score_of_noise_is_a_line_and_its_course_no_spread(scores: BiasScores) -> None:
    course = [1.0, 0.5]  # what noise scores after one batch and after two
    scores = replace(scores, approach="gradient_signal")
    scores.terms["query"] = replace(scores.terms["query"], layers=[0.5, 0.5], history=course)
    assert scores.spreads["query"] == 0
    line: Any = score_picture(scores).axes[1].lines[0]
    assert (list(line.get_xdata()), line.get_label()) == ([0.5, 0.5], "noise alone")


def test_a_file_is_a_png_and_an_svg_and_the_same_each_time(scores: BiasScores, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert save_picture(score_picture(scores), tmp_path / name / "scores.png").suffix == ".png"
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["scores.png", "scores.svg"]
    for name in ("scores.png", "scores.svg"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
