"""The pictures of a comparison."""

import math
from typing import Any

from beft_lightning.pictures import accuracy_by_size, comparison_curves, results_by_method
from tests.commands.conftest import record

RUNS = [
    record(history=[0.5, 0.6]),
    record(seed=2, history=[0.7, 0.8, 0.9]),
    record("zero_shot", history=[], trained_parameters=0),
    record("lora", history=[0.5, 0.9], trained_parameters=1000, last={"accuracy": 0.9}, diverged=True),
    record("full", history=[0.5, math.nan], trained_parameters=1000, last={"accuracy": math.nan}),
]


def test_bars_are_means_without_diverged_runs() -> None:
    axes: Any = results_by_method(RUNS, "accuracy").axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.625, 0.5, 0.0, 0.0]
    assert [len(line.get_xdata()) for line in axes.lines] == [2, 1, 0, 0]


def test_curves_are_means_over_seeds_with_a_band() -> None:
    axes: Any = comparison_curves(RUNS, "accuracy").axes[0]
    (line,) = axes.lines
    assert line.get_label() == "value"
    assert line.get_xdata().tolist() == [1, 2]
    assert [round(value, 6) for value in line.get_ydata()] == [0.6, 0.7]
    assert len(axes.collections) == 1


def test_what_trains_nothing_is_a_line_beside_the_logarithmic_axis() -> None:
    axes: Any = accuracy_by_size(RUNS, "accuracy").axes[0]
    assert axes.get_xscale() == "log"
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert sorted(labels) == ["value (10)", "zero_shot (0)"]
    points = [line for line in axes.lines if list(line.get_xdata()) == [10]]
    assert {float(line.get_ydata()[0]) for line in points} >= {0.625}
    (level,) = (line for line in axes.lines if str(line.get_label()).startswith("zero_shot"))
    assert level.get_xdata() == [0, 1]  # from side to side


def test_methods_of_one_size_stand_beside_each_other() -> None:
    runs = [record(tune, last={"accuracy": 0.5}) for tune in ("value", "query", "key")]
    axes: Any = accuracy_by_size(runs, "accuracy").axes[0]
    low, middle, high = sorted({float(line.get_xdata()[0]) for line in axes.lines})
    assert math.isclose(low * high, 10**2)
    assert low < middle == 10 < high
