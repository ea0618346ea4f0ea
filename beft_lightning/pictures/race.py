"""The picture of a race."""

import math
from statistics import fmean

from matplotlib.figure import Figure

from beft_lightning.pictures.style import line_styles
from beft_lightning.scoring.race.scores import RaceScores


def race_curves(scores: RaceScores) -> Figure:
    """Draw the held-out loss of each entrant over its training batches.

    A term has a colour and a marker, a learning rate a kind of line.

    Args:
        scores: What to draw.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    result = scores.result
    start = fmean(result.initial)
    of_terms = dict(zip(result.best_of_terms, line_styles(len(result.best_of_terms)), strict=True))
    lines = dict(zip(sorted({e.rate for e in result.entrants}), ["-", "--", ":", "-."] * 8, strict=False))
    for entrant in result.ranking:
        laps = [(lap.batches, lap.loss) for lap in entrant.laps if math.isfinite(lap.loss)]
        batches, losses = zip((0, start), *laps, strict=True)
        style = of_terms[entrant.term] | {"linestyle": lines[entrant.rate]}
        axes.plot(batches, losses, label=f"{entrant.term}, {entrant.rate:g}", **style)
    axes.set_xlabel("training batches")
    axes.set_ylabel(f"loss on {len(result.initial)} held-out batches")
    axes.set_title(f"Race of bias terms of {scores.model_type}")
    axes.legend(fontsize="small", ncols=1 + len(result.entrants) // 12, handlelength=3)
    return figure
