"""The pictures of a comparison of methods."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from beft_lightning.compared_run import Run
from beft_lightning.pictures.style import line_styles

#: Ratio of the places on a logarithmic axis of two points that would hide each other.
_GAP = 1.25


def results_by_method(runs: Sequence[Run], metric: str) -> Figure:
    """Draw each method's results: a dot for each seed, a bar for the mean, and the number of values it trains.

    Args:
        runs: All runs.
        metric: Name of the metric.
    """
    methods = _by_method(runs)
    figure = Figure(figsize=(7, 0.9 + 0.35 * len(methods)), layout="constrained")
    axes = figure.add_subplot()
    for row, of_method in enumerate(methods.values()):
        values = _results(of_method, metric)
        axes.barh(row, np.mean(values) if values else 0.0, color="0.85")
        axes.plot(values, [row] * len(values), "o", color="0.2", markersize=4)
        label = f" {of_method[0].trained_parameters:,}" + ("" if values else ", diverged")
        axes.text(0.0, row, label, va="center", fontsize="small")
    axes.set_yticks(range(len(methods)), list(methods))
    axes.invert_yaxis()
    axes.set_xlabel(f"{metric} after the last epoch (numbers: values trained)")
    return figure


def comparison_curves(runs: Sequence[Run], metric: str) -> Figure:
    """Draw the metric after each validation: a line for each method's mean, a band from its lowest to its highest seed.

    A method with runs of several lengths has a line as long as the shortest.

    Args:
        runs: All runs.
        metric: Name of the metric.
    """
    methods = {tune: histories for tune, of_method in _by_method(runs).items() if (histories := _histories(of_method))}
    figure, axes = _figure()
    for style, (tune, histories) in zip(line_styles(len(methods)), methods.items(), strict=True):
        values = np.array(histories)  # (seeds, validations)
        validations = range(1, values.shape[1] + 1)
        axes.plot(validations, values.mean(0), label=tune, **style)
        if len(values) > 1:
            axes.fill_between(validations, values.min(0), values.max(0), color=style["color"], alpha=0.15, linewidth=0)
    axes.set(xlabel="validation", ylabel=metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes)
    return figure


def accuracy_by_size(runs: Sequence[Run], metric: str) -> Figure:
    """Draw the metric after the last epoch against the number of trained parameters, on a logarithmic axis.

    A point is the mean over the seeds, its bar reaches from the lowest to the highest. What trains nothing is a line.
    Methods that train equally many parameters stand beside each other.

    Args:
        runs: All runs.
        metric: Name of the metric.
    """
    results = {tune: (_results(of_method, metric), of_method[0]) for tune, of_method in _by_method(runs).items()}
    methods = {tune: (values, first.trained_parameters) for tune, (values, first) in results.items() if values}
    figure, axes = _figure()
    for style, (tune, (values, trained)) in zip(line_styles(len(methods)), methods.items(), strict=True):
        mean = float(np.mean(values))
        if not trained:
            axes.axhline(mean, label=f"{tune} (0)", color=style["color"], linestyle=":")
            continue
        reach = [[mean - min(values)], [max(values) - mean]]
        point = style | {"linestyle": "none", "markersize": 7}
        equal = [other for other, (_, size) in methods.items() if size == trained]
        beside = trained * _GAP ** (equal.index(tune) - (len(equal) - 1) / 2)
        axes.errorbar(beside, mean, yerr=reach, capsize=3, label=f"{tune} ({trained:,})", **point)
    axes.set(xscale="log", xlabel="trained parameters", ylabel=f"{metric} after the last epoch")
    _legend(axes)
    return figure


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.5, 4), layout="constrained")
    return figure, figure.add_subplot()


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small", handlelength=3, loc="center left", bbox_to_anchor=(1, 0.5))


def _by_method(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Method -> its runs, in the order in which the methods were run."""
    methods: dict[str, list[Run]] = {}
    for run in runs:
        methods.setdefault(run.tune, []).append(run)
    return methods


def _results(runs: Sequence[Run], metric: str) -> list[float]:
    """The metric of each run that has not diverged."""
    found = [run.last.get(metric, math.nan) for run in runs if not run.diverged]
    return [value for value in found if math.isfinite(value)]


def _histories(runs: Sequence[Run]) -> list[list[float]]:
    """The metric of each run after each validation, as many as all have; without diverged runs."""
    found = [run.history for run in runs if run.history and not run.diverged and all(map(math.isfinite, run.history))]
    return [history[: min(map(len, found))] for history in found]
