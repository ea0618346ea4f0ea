"""The pictures of the study."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import pandas as pd
from matplotlib.figure import Figure

from beft_lightning.pictures import save_picture
from benchmarks.selection.settings import ENCODER_TERMS, SHORT, Setting
from benchmarks.selection.study import Study

#: Told apart without colours, and with the colours of Okabe and Ito by people who see fewer of them.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
#: Place of each term in these, so that it looks the same in every panel. No setting has both terms of one place.
_PLACES = {
    term: place
    for terms in (ENCODER_TERMS, (*ENCODER_TERMS[:5], "mlp_gate", "key"))
    for place, term in enumerate(terms)
}


def curves_picture(study: Study, settings: Sequence[Setting], path: Path) -> None:
    """Draw the test metric of each single term over the epochs, a panel for each setting: means over the seeds.

    Args:
        study: The study.
        settings: Settings that are complete.
        path: Name of the PNG file; the SVG file stands beside it.
    """
    rows = math.ceil(len(settings) / 2)
    figure = Figure(figsize=(9.6, 4.8 * rows), layout="constrained")
    for i, setting in enumerate(settings):
        axes = figure.add_subplot(rows, 2, 1 + i)
        for term in filter(study.ways_of(setting).__contains__, setting.terms):
            colour, marker = COLOURS[_PLACES[term]], MARKERS[_PLACES[term]]
            mean = [fmean(values) for values in zip(*study.curves(setting.name, term), strict=True)]
            rate = study.reported(setting.name, term)[0]["rate"]
            label = f"{term} ({rate:g})"
            axes.plot(range(1, len(mean) + 1), mean, color=colour, marker=marker, markersize=5, label=label)
        axes.set_title(setting.name)
        axes.set_xlabel("epoch")
        axes.set_ylabel("test metric, mean over seeds")
        axes.set_xticks(range(1, setting.epochs + 1))
        # Below the panel, where it hides no line.
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.15)}
        axes.legend(title="term (its rate)", fontsize="small", ncols=2, **place)
    save_picture(figure, path)


def regret_picture(found: pd.DataFrame, chance: float, path: Path) -> None:
    """Draw the mean regret of each approach at the short and at the long budget.

    Args:
        found: What the approaches picked, see ``report.picks``.
        chance: The mean regret at the long budget of a term at random.
        path: Name of the PNG file; the SVG file stands beside it.
    """
    means = found.groupby("approach")[["short", "long"]].mean().sort_values("long", ascending=False)
    figure = Figure(figsize=(6, 1.2 + 0.45 * len(means)), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(means))
    axes.barh([place + 0.2 for place in places], means["short"], 0.38, color="#B0B0B0", label=f"after {SHORT} epochs")
    axes.barh([place - 0.2 for place in places], means["long"], 0.38, color="#0072B2", label="at the end")
    axes.axvline(chance, color="black", linestyle="--", label="at the end, a term at random")
    axes.set_yticks(places, list(means.index))
    axes.set_xlabel("mean regret (0: it always picked the best term)")
    axes.legend()
    save_picture(figure, path)
