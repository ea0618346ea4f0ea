"""The results of a comparison for people: a CSV file, a Markdown table and a picture."""

import csv
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from rich.table import Table

from beft_lightning.commands.compare import Run
from beft_lightning.files import write_atomically, write_text_atomically


def write_report(runs: Sequence[Run], folder: Path, notes: str = "") -> None:
    """Write ``results.csv``, ``results.md`` and ``results.png``.

    Args:
        runs: All runs.
        folder: Where to.
        notes: Markdown to put below the table.
    """
    write_text_atomically(folder / "results.csv", to_csv(runs))
    write_text_atomically(folder / "results.md", to_markdown(runs) + (f"\n{notes}" if notes else ""))
    write_atomically(folder / "results.png", lambda path: plot(runs).savefig(path, dpi=150))


def by_way(runs: Sequence[Run]) -> Mapping[str, list[Run]]:
    """The runs of each way, in the order in which they were asked for."""
    ways: dict[str, list[Run]] = {}
    for run in runs:
        ways.setdefault(run.tune, []).append(run)
    return ways


def main_metric(runs: Sequence[Run]) -> str:
    """Name of the metric that ways are compared by: the task's first."""
    return next(iter(runs[0].last))


def to_csv(runs: Sequence[Run]) -> str:
    """One line for each run, one column for each metric after the last and after the best epoch."""
    metrics = list(runs[0].last)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    numbers = ["trained_parameters", "total_parameters", "seconds", "peak_memory"]
    names = ["tune", "seed", "learning_rate", "best_epoch"]
    writer.writerow([*names, *(f"last_{m}" for m in metrics), *(f"best_{m}" for m in metrics), *numbers])
    for run in runs:
        last, best = [run.last[m] for m in metrics], [run.best[m] if run.best else "" for m in metrics]
        values = vars(run)
        writer.writerow([*(values[name] for name in names), *last, *best, *(values[name] for name in numbers)])
    return text.getvalue()


def to_markdown(runs: Sequence[Run]) -> str:
    """A table with mean and standard deviation over the seeds for each way."""
    metric = main_metric(runs)
    lines = [
        f"| tune | {metric}, last epoch | {metric}, best dev epoch | trained | share | learning rate | seconds "
        "| peak memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for way, group in by_way(runs).items():
        last = _spread([run.last[metric] for run in group])
        best = _spread([run.best[metric] for run in group if run.best])
        first = group[0]
        share = first.trained_parameters / first.total_parameters
        peak = max(run.peak_memory or 0 for run in group)
        memory = f"{peak / 2**20:,.0f} MiB" if peak else "-"
        rate = f"{first.learning_rate:g}" if first.trained_parameters else "-"
        seconds = statistics.mean(run.seconds for run in group)
        lines.append(
            f"| {way} | {last} | {best} | {first.trained_parameters:,} | {share:.4%} | {rate} "
            f"| {seconds:.0f} | {memory} |"
        )
    seeds = sorted({run.seed for run in runs})
    legend = f"Mean and standard deviation over seeds {', '.join(map(str, seeds))}; seconds are a run's mean.\n"
    if options := {run.tune: run.options for run in runs if run.options}:
        legend += f"\nOptions: {'; '.join(f'{way} {json.dumps(given)}' for way, given in options.items())}.\n"
    return "\n".join(lines) + f"\n\n{legend}"


def results_table(runs: Sequence[Run]) -> Table:
    """Mean and standard deviation for each way, as a table for ``rich.print``."""
    metric = main_metric(runs)
    table = Table(title=f"{metric} over {len({run.seed for run in runs})} seeds")
    for name in ("tune", "last epoch", "best dev epoch", "trained"):
        table.add_column(name, justify="left" if name == "tune" else "right")
    for way, group in by_way(runs).items():
        last, best = _spread([run.last[metric] for run in group]), _spread([r.best[metric] for r in group if r.best])
        table.add_row(way, last, best, f"{group[0].trained_parameters:,}")
    return table


def plot(runs: Sequence[Run]) -> Figure:
    """Each way's results over the number of values it trains: a dot for each seed, a bar for the mean."""
    metric = main_metric(runs)
    groups = by_way(runs)
    figure = Figure(figsize=(7, 0.9 + 0.35 * len(groups)), layout="constrained")
    axes = figure.add_subplot()
    for row, group in enumerate(groups.values()):
        values = [run.last[metric] for run in group]
        axes.barh(row, statistics.mean(values), color="0.85")
        axes.plot(values, [row] * len(values), "o", color="tab:blue", markersize=4)
        axes.text(0.0, row, f" {group[0].trained_parameters:,}", va="center", fontsize="small")
    axes.set_yticks(range(len(groups)), list(groups))
    axes.invert_yaxis()
    axes.set_xlabel(f"{metric} after the last epoch (numbers: values trained)")
    return figure


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"
