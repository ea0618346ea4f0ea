"""The picture of a table of scores."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from beft_lightning.bias.names import parsed, split_name
from beft_lightning.pictures.style import COLOR_MAP
from beft_lightning.scoring.score_table import BiasScores
from beft_lightning.words import batches

#: Most layers that each have a number below them.
_NUMBERED_LAYERS = 16


def score_picture(scores: BiasScores) -> Figure:
    """Draw a heat map of the scores, terms by layers, and beside it a bar for each term's score with its spread.

    The best term is on top, layers count from 0, and inert terms are hatched. Single layers that were selected, or that
    hold a selected head, are outlined.

    Args:
        scores: What to draw.
    """
    ranking = scores.ranking
    width = max(len(scores.terms[term].layers) for term in ranking)
    figure = Figure(figsize=(5.4 + min(0.45 * width, 9.0), 1.9 + 0.38 * len(ranking)), layout="constrained")
    layers, bars = figure.subplots(1, 2, sharey=True, width_ratios=[min(0.45 * width, 9.0) + 0.6, 2.6])
    _draw_layers(layers, scores, width)
    _draw_bars(bars, scores)
    layers.set_yticks(range(len(ranking)), [_label(scores, term) for term in ranking])
    figure.suptitle(f"Bias terms of {scores.model_type}, {batches(scores.steps)}", fontsize="large")
    return figure


def _draw_layers(axes: Axes, scores: BiasScores, width: int) -> None:
    """Draw the heat map; a term with fewer layers leaves cells empty."""
    cells = np.full((len(scores.terms), width), np.nan)
    for row, term in enumerate(scores.ranking):
        entry = scores.terms[term]
        cells[row, : len(entry.layers)] = entry.layers
        if entry.inert:
            axes.add_patch(
                Rectangle(
                    (-0.5, row - 0.5), len(entry.layers), 1, fill=False, hatch="///", edgecolor="0.45", linewidth=0
                )
            )
    image = axes.imshow(cells, cmap=COLOR_MAP, aspect="auto", vmin=0.0)
    for name in scores.selected:
        term, layer, _ = parsed(name)
        if layer is not None:
            corner = (layer - 0.5, scores.ranking.index(term) - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="black", linewidth=2))
    assert axes.figure is not None
    axes.figure.colorbar(image, ax=axes, location="left", pad=0.03, label=f"{scores.approach} score")
    axes.set_xticks(range(0, width, -(-width // _NUMBERED_LAYERS)))
    axes.set_xlabel("layer")


def _draw_bars(axes: Axes, scores: BiasScores) -> None:
    """Draw each term's score, with two standard errors over the batches, and that of noise, where they are known."""
    spreads = scores.spreads
    if scores.noise:
        axes.axvline(scores.noise, color="black", linestyle="--", linewidth=1, label="noise alone")
        axes.legend(loc="lower right", frameon=False, fontsize="small")
    chosen = {split_name(name)[0] for name in scores.selected}
    for row, term in enumerate(scores.ranking):
        entry = scores.terms[term]
        spread = spreads[term]
        color = "white" if entry.inert else "0.35" if term in chosen else "0.75"
        hatch = "///" if entry.inert else None
        axes.barh(row, entry.score, 0.7, color=color, edgecolor="0.35", hatch=hatch, xerr=spread, capsize=3)
        end = (entry.score + (spread or 0.0), row)
        axes.annotate(f"{entry.score:.2g}", end, (5, 0), textcoords="offset points", va="center", fontsize="small")
    axes.set_xlabel("mean of the layers" + ("\n± 2 standard errors over batches" if any(spreads.values()) else ""))
    axes.margins(x=0.25)
    axes.set_xlim(left=0.0)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)


def _label(scores: BiasScores, term: str) -> str:
    marks = [
        *(["selected"] if any(split_name(name)[0] == term for name in scores.selected) else []),
        *(["inert"] if scores.terms[term].inert else []),
    ]
    return term + (f" ({', '.join(marks)})" if marks else "")
