"""The report on scores: a ranking table for the terminal, and a warning."""

from rich.table import Table

from beft_lightning.bias.names import split_name
from beft_lightning.scoring.margin import Margin
from beft_lightning.scoring.record import record_of
from beft_lightning.scoring.score_table import BiasScores
from beft_lightning.words import batches


def ranking_table(scores: BiasScores) -> Table:
    """Return the terms from best to worst, as a table for ``rich.print``.

    Shares and margins are relative to the best live term; an inert one, whose score is that of rounding, has none.

    Below it stand the score of noise alone, and the record of the approach in the study, where they are known.
    """
    title = f"Bias terms of {scores.model_type} by {scores.approach} score, {batches(scores.steps)}"
    record = record_of(scores.approach)
    captions = [
        *([f"Noise alone scores {scores.noise:.4g}."] if scores.noise else []),
        *([f"In the study, {scores.approach} {record.in_words()}."] if record else []),
    ]
    table = Table(title=title, caption="\n".join(captions) or None)
    table.add_column("term", no_wrap=True)
    for name in ("score", "share", "margin", "values"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("note")
    margins = scores.margins
    best = max((scores.terms[term].score for term in scores.live), default=0.0)
    for term in scores.ranking:
        entry = scores.terms[term]
        places = [place for name, place in map(split_name, scores.selected) if name == term and place]
        unit = "heads" if any("h" in place for place in places) else "layers"
        notes = [
            *(["[bold green]selected[/]"] if term in scores.selected else []),
            *([f"[bold green]selected: {unit} {', '.join(places)}[/]"] if places else []),
            *(["[yellow]inert: no effect[/]"] if entry.inert else []),
        ]
        share = f"{entry.score / best:.1%}" if best > 0 and not entry.inert else "-"
        margin = _share(margins[term], best) if term in margins and best > 0 else ""
        table.add_row(term, f"{entry.score:.4g}", share, margin, f"{entry.parameters:,}", ", ".join(notes))
    return table


def near_tie_warning(scores: BiasScores) -> str | None:
    """Return a warning if other batches may select another term, else ``None``."""
    term = scores.near_tie
    if term is None:
        return None
    margin = scores.margins[term]
    spread = "" if margin.spread is None else f" ± {margin.spread:.2g} (two standard errors over the batches)"
    return (
        f"{term!r} was selected, but its score leads that of {margin.over!r} by {margin.difference:.2g}{spread}, after "
        f"{batches(scores.steps)}: other batches may select the other. "
        "Score on more batches (`batches`, and `patience` 0), or name the term with approach 'fixed'."
    )


def _share(margin: Margin, best: float) -> str:
    return f"{margin.difference / best:.0%}" + ("" if margin.spread is None else f" ± {margin.spread / best:.0%}")
