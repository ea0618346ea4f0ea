"""The command ``plot``: the pictures of a folder that a fit or a comparison has left."""

import json
from pathlib import Path

import pandas as pd

from beft_lightning.commands.compare_report import draw_report
from beft_lightning.commands.run_folder import read_runs
from beft_lightning.errors import BeftError
from beft_lightning.pictures import learning_curves, race_curves, save_picture, score_picture
from beft_lightning.scoring.race.scores import RaceScores
from beft_lightning.scoring.score_table import BiasScores


def plot(folder: Path) -> None:
    """Draw what a folder holds: learning curves, scores, or the results of a comparison, as PNG and SVG.

    Args:
        folder: Folder with ``metrics.csv`` or ``scores.json`` of a fit, or with the ``runs`` of a comparison.

    Raises:
        BeftError: If there is nothing to draw, or a file is damaged.
    """
    if not folder.is_dir():
        raise BeftError(f"--folder {folder}: no such folder (looked in {Path.cwd()}).")
    runs = read_runs(folder)
    metrics, scores = folder / "metrics.csv", folder / "scores.json"
    if not (runs or metrics.is_file() or scores.is_file()):
        raise BeftError(
            f"--folder {folder}: nothing to draw. A fit with CSVLogger leaves metrics.csv in its folder (by default "
            "lightning_logs/version_N), a scoring pass scores.json, and compare a folder runs."
        )
    if metrics.is_file():
        save_picture(learning_curves(_read_metrics(metrics)), folder / "metrics.png")
    if scores.is_file():
        raced = _approach(scores) == RaceScores.approach
        figure = race_curves(RaceScores.load(scores)) if raced else score_picture(BiasScores.load(scores))
        save_picture(figure, folder / "scores.png")
    if runs:
        draw_report(runs, folder)
    elif not metrics.is_file():
        print(
            f"No learning curves: {folder} has no metrics.csv. They are drawn from the log of CSVLogger, which is the "
            "default of fit; other loggers show theirs in their own pages."
        )
    print(f"Drew the pictures of {folder}, each as PNG and SVG.")


def _read_metrics(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except ValueError as error:  # pandas' own errors are of this kind
        raise BeftError(f"{path}: not the metrics of a fit ({error}).") from error


def _approach(path: Path) -> str | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None  # BiasScores.load says what is wrong.
    return content.get("approach") if isinstance(content, dict) else None
