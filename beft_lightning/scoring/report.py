"""The report on scores: a ranking table for the terminal, a warning, and a heat map."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.table import Table

from beft_lightning.bias.names import split_name
from beft_lightning.files import write_atomically
from beft_lightning.scoring.margin import Margin
from beft_lightning.scoring.record import record_of
from beft_lightning.scoring.score_table import BiasScores


def ranking_table(scores: BiasScores) -> Table:
    """Return the terms from best to worst, as a table for ``rich.print``; shares and margins relative to the best.

    Below it stands the record of the approach in the study, if it has one.
    """
    title = f"Bias terms of {scores.model_type} by {scores.approach} score, {scores.steps} batches"
    record = record_of(scores.approach)
    caption = f"In the study, {scores.approach} {record.in_words()}." if record else None
    table = Table(title=title, caption=caption)
    table.add_column("term", no_wrap=True)
    for name in ("score", "share", "margin", "values"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("note")
    margins = scores.margins
    best = max(entry.score for entry in scores.terms.values())
    for term in scores.ranking:
        entry = scores.terms[term]
        places = [place for name, place in map(split_name, scores.selected) if name == term and place]
        unit = "heads" if any("h" in place for place in places) else "layers"
        notes = [
            *(["[bold green]selected[/]"] if term in scores.selected else []),
            *([f"[bold green]selected: {unit} {', '.join(places)}[/]"] if places else []),
            *(["[yellow]inert: cannot change the output[/]"] if entry.inert else []),
        ]
        share = f"{entry.score / best:.1%}" if best > 0 else "-"
        margin = _share(margins[term], best) if term in margins and best > 0 else ""
        table.add_row(term, f"{entry.score:.4g}", share, margin, f"{entry.parameters:,}", ", ".join(notes))
    return table


def near_tie_warning(scores: BiasScores) -> str | None:
    """Return a warning if other batches may select another term, else ``None``."""
    term = scores.near_tie
    if term is None:
        return None
    margin = scores.margins[term]
    return (
        f"{term!r} was selected, but its score leads that of {margin.over!r} by {margin.difference:.2g} ± "
        f"{margin.spread:.2g} (two standard errors over {scores.steps} batches): other batches may select the other. "
        "Score on more batches (`batches`, and `patience` 0), or name the term with approach 'fixed'."
    )


def plot_scores(scores: BiasScores, path: str | Path) -> Path:
    """Draw the heat map, terms by layers and their average, best term on top; inert terms are hatched.

    Args:
        scores: What to draw.
        path: The picture's file; its suffix says the format.

    Returns:
        The path of the picture.
    """
    ranking = scores.ranking
    width = max(len(scores.terms[term].layers) for term in ranking)
    cells = np.full((len(ranking), width + 1), np.nan)
    for row, term in enumerate(ranking):
        layers = scores.terms[term].layers
        cells[row, : len(layers)] = layers
        cells[row, width] = scores.terms[term].score

    figure = Figure(figsize=(2.8 + 0.55 * (width + 1), 1.6 + 0.45 * len(ranking)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(cells, cmap="Blues", aspect="auto", vmin=0.0)
    figure.colorbar(image, ax=axes, label=f"{scores.approach} score")
    axes.set_xticks(range(width + 1), [*(str(layer) for layer in range(1, width + 1)), "avg."])
    axes.set_yticks(range(len(ranking)), [_label(scores, term) for term in ranking])
    axes.set_xlabel("layer")
    axes.set_title(f"{scores.model_type}, {scores.steps} batches")
    axes.axvline(width - 0.5, color="white", linewidth=3)
    middle = np.nanmax(cells) / 2
    for row, term in enumerate(ranking):
        average = cells[row, width]
        axes.text(
            width, row, f"{average:.2g}", ha="center", va="center", color="white" if average > middle else "black"
        )
        if scores.terms[term].inert:
            axes.add_patch(
                Rectangle((-0.5, row - 0.5), width, 1, fill=False, hatch="///", edgecolor="0.6", linewidth=0)
            )
    return write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=150))


def _share(margin: Margin, best: float) -> str:
    return f"{margin.difference / best:.0%}" + ("" if margin.spread is None else f" ± {margin.spread / best:.0%}")


def _label(scores: BiasScores, term: str) -> str:
    marks = [
        *(["selected"] if any(split_name(name)[0] == term for name in scores.selected) else []),
        *(["inert"] if scores.terms[term].inert else []),
    ]
    return term + (f" ({', '.join(marks)})" if marks else "")
