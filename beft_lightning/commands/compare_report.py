"""The results of a comparison for people: a CSV file, a Markdown table and pictures."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.table import Table

from beft_lightning.commands.markdown import markdown_table
from beft_lightning.compared_run import Run
from beft_lightning.files import write_text_atomically
from beft_lightning.pictures import accuracy_by_size, comparison_curves, results_by_method, save_picture


def write_report(runs: Sequence[Run], folder: Path, notes: str = "") -> None:
    """Write ``results.csv``, ``results.md`` and the pictures.

    Args:
        runs: All runs.
        folder: Where to.
        notes: Markdown to put below the table.
    """
    write_text_atomically(folder / "results.csv", to_csv(runs))
    write_text_atomically(folder / "results.md", to_markdown(runs) + (f"\n{notes}" if notes else ""))
    draw_report(runs, folder)


def draw_report(runs: Sequence[Run], folder: Path) -> None:
    """Draw ``results``, ``curves`` and ``parameters``, each as PNG and SVG.

    Args:
        runs: All runs.
        folder: Where to.
    """
    pictures = {"results": results_by_method, "curves": comparison_curves, "parameters": accuracy_by_size}
    for name, draw in pictures.items():
        save_picture(draw(runs, main_metric(runs)), folder / f"{name}.png")


def to_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Put each run in a row, with a column for each metric after the last and after the best epoch.

    Metrics of a diverged run are missing, so that no mean includes them.

    Args:
        runs: All runs.
    """
    rows = []
    for run in runs:
        last, best = ({}, {}) if run.diverged else (run.last, run.best or {})
        rows.append(
            {
                "tune": run.tune,
                "seed": run.seed,
                "learning_rate": run.learning_rate,
                "best_epoch": None if run.diverged else run.best_epoch,
                **{f"last_{metric}": last.get(metric) for metric in runs[0].last},
                **{f"best_{metric}": best.get(metric) for metric in runs[0].last},
                "trained_parameters": run.trained_parameters,
                "total_parameters": run.total_parameters,
                "seconds": run.seconds,
                "peak_memory": run.peak_memory,
            }
        )
    frame = pd.DataFrame(rows)
    types = {name: "float64" for name in frame if name.startswith(("last_", "best_"))}
    return frame.astype({**types, "best_epoch": "Int64", "peak_memory": "Int64"})


def to_csv(runs: Sequence[Run]) -> str:
    """Return one line for each run; see :func:`to_frame` for the columns.

    Args:
        runs: All runs.
    """
    text: str = to_frame(runs).to_csv(index=False, lineterminator="\n")
    return text


def summarized(runs: Sequence[Run]) -> pd.DataFrame:
    """Return one row of formatted text for each method, in the order in which the methods were run.

    Args:
        runs: All runs.

    Returns:
        The columns of ``results.md``. Results are mean and standard deviation over the seeds.
    """
    metric = main_metric(runs)
    frame = to_frame(runs)
    groups = frame.groupby("tune", sort=False)
    first = groups.first()
    return pd.DataFrame(
        {
            f"{metric}, last epoch": groups[f"last_{metric}"].apply(_spread_or_diverged),
            f"{metric}, best dev epoch": groups[f"best_{metric}"].apply(_spread),
            "trained": first["trained_parameters"].map("{:,}".format),
            "share": (first["trained_parameters"] / first["total_parameters"]).map("{:.4%}".format),
            "learning rate": groups["learning_rate"].apply(_rates).where(first["trained_parameters"] > 0, "-"),
            "seconds": groups["seconds"].mean().map("{:.0f}".format),
            "peak memory": groups["peak_memory"].max().map(_mebibytes),
        }
    ).reset_index()


def to_markdown(runs: Sequence[Run]) -> str:
    """Return a table with a row for each method, and its legend.

    Args:
        runs: All runs.
    """
    seeds = sorted({run.seed for run in runs})
    legend = f"Mean and standard deviation over seeds {', '.join(map(str, seeds))}; seconds are a run's mean.\n"
    if options := {run.tune: run.options for run in runs if run.options}:
        legend += f"\nOptions: {'; '.join(f'{tune} {json.dumps(given)}' for tune, given in options.items())}.\n"
    if any(run.raced for run in runs):
        legend += "\nA short race has chosen the learning rate of each run.\n"
    if note := diverged_note(runs):
        legend += f"\n{note}\n"
    return f"{markdown_table(summarized(runs))}\n{legend}"


def diverged_note(runs: Sequence[Run]) -> str:
    """Return a sentence that names the diverged runs; empty if there are none.

    Args:
        runs: All runs.
    """
    diverged = [f"{run.tune} with seed {run.seed}" for run in runs if run.diverged]
    return f"Diverged, and left out of the means: {', '.join(diverged)}." if diverged else ""


def results_table(runs: Sequence[Run]) -> Table:
    """Return the results of each method as a table for ``rich.print``.

    Args:
        runs: All runs.
    """
    metric = main_metric(runs)
    title = f"{metric} over {len({run.seed for run in runs})} seeds"
    table = Table(title=title, caption=diverged_note(runs) or None)
    for name in ("tune", "last epoch", "best dev epoch", "trained"):
        table.add_column(name, justify="left" if name == "tune" else "right")
    summary = summarized(runs)
    for row in summary[["tune", f"{metric}, last epoch", f"{metric}, best dev epoch", "trained"]].values:
        table.add_row(*row)
    return table


def main_metric(runs: Sequence[Run]) -> str:
    """Return the name of the metric that methods are compared by: the task's first.

    Args:
        runs: All runs.
    """
    return next(iter(runs[0].last))


def _spread(values: pd.Series) -> str:
    found = values.dropna()
    if found.empty:
        return "-"
    return f"{found.mean():.3f}" + (f" ± {found.std():.3f}" if len(found) > 1 else "")


def _spread_or_diverged(values: pd.Series) -> str:
    missing = int(values.isna().sum())
    if missing == len(values):
        return "diverged"
    return _spread(values) + (f" ({missing} of {len(values)} diverged)" if missing else "")


def _rates(values: pd.Series) -> str:
    return ", ".join(f"{value:g}" for value in sorted(set(values)))


def _mebibytes(size: int) -> str:
    return "-" if pd.isna(size) or not size else f"{size / 2**20:,.0f} MiB"
