"""The picture of one fit."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from beft_lightning.errors import BeftError
from beft_lightning.pictures.style import line_styles

#: What the names of a metric begin with, by where it was measured.
_STAGES = {"train": "training", "val": "validation", "test": "test"}


def learning_curves(metrics: pd.DataFrame) -> Figure:
    """Draw the metrics of a fit over its steps: one panel for each metric, training and validation in it together.

    Args:
        metrics: What Lightning's CSVLogger has written: a column ``step``, and one for each metric, with gaps.

    Raises:
        BeftError: If there are no metrics over steps.
    """
    panels: dict[str, list[str]] = {}
    for column in metrics:
        # The scores of bias terms are single values, and an epoch is a place.
        if column not in ("step", "epoch") and not column.startswith("bias_score/") and metrics[column].notna().any():
            panels.setdefault(_without_stage(column), []).append(column)
    if "step" not in metrics or not panels:
        raise BeftError("there are no metrics over steps to draw: they need a column 'step', and one for each metric.")
    figure = Figure(figsize=(1.2 + 3.6 * len(panels), 3.4), layout="constrained")
    for axes, (metric, columns) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for style, column in zip(line_styles(len(columns)), columns, strict=True):
            known = metrics[["step", column]].dropna()
            # Steps are counted from 0; after the first of them, one has been made.
            axes.plot(known["step"] + 1, known[column], label=_STAGES.get(column.partition("_")[0], column), **style)
        axes.set(title=metric, xlabel="optimizer steps")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.legend(fontsize="small", handlelength=3)
    return figure


def _without_stage(column: str) -> str:
    stage, _, metric = column.partition("_")
    return metric if stage in _STAGES and metric else column
