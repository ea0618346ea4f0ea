"""The report on a race: a table for the terminal, and the verdict in words."""

import math

from rich.table import Table

from beft_lightning.scoring.race.result import RaceResult
from beft_lightning.scoring.race.scores import RaceScores
from beft_lightning.scoring.record import record_of
from beft_lightning.words import batches


def race_table(scores: RaceScores) -> Table:
    """Return the terms from best to worst, as a table for ``rich.print``.

    ``loss`` is that on held-out batches; ``behind`` is the gap of a term's best entrant to the winner when they were
    last compared. Below it stand the cost, and the record of races in the study, if there is one.
    """
    result = scores.result
    record = record_of(scores.approach)
    below = [cost_in_words(result), *([f"In the study, race {record.in_words()}."] if record else [])]
    table = Table(title=f"Race of bias terms of {scores.model_type}", caption="\n".join(below))
    table.add_column("term", no_wrap=True)
    for name in ("rate", "batches", "loss", "behind"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("note")
    ties = result.ties
    for term, entrant in result.best_of_terms.items():
        behind, notes = "", []
        if entrant is not result.winner and not math.isfinite(entrant.loss):
            notes.append("[yellow]diverged[/]")
        elif entrant is not result.winner:
            difference = entrant.gap_to(result.winner)
            behind = f"{difference.difference:.2g} ± {difference.spread:.2g}"
        if term in scores.selected:
            notes.append("[bold green]selected[/]")
        if term in ties:
            notes.append("[yellow]tie[/]")
        table.add_row(term, f"{entrant.rate:g}", f"{entrant.batches}", f"{entrant.loss:.4f}", behind, ", ".join(notes))
    for term in scores.inert:
        table.add_row(term, "", "", "", "", "[yellow]inert[/]")
    return table


def cost_in_words(result: RaceResult) -> str:
    """Return what a race has cost, for example ``352 + 48 held-out batches, 12.1 s, 28% of the fit's batches``."""
    cost = result.cost
    share = "" if cost.share_of_fit is None else f", {cost.share_of_fit:.0%} of the fit's batches"
    return f"{cost.training_batches} training + {cost.held_out_batches} held-out batches, {cost.seconds:.1f} s{share}"


def verdict(result: RaceResult) -> str:
    """Return in words who won, by how much, and after how many batches, or that it is a tie."""
    winner, ties = result.winner, result.ties
    name = f"{winner.term!r} at learning rate {winner.rate:g}"
    others = [entrant for term, entrant in result.best_of_terms.items() if term != winner.term]
    if not others:
        return f"{name} has the lowest held-out loss after {batches(winner.batches)}."
    nearest = result.best_of_terms[ties[0]] if ties else others[0]
    difference = nearest.gap_to(winner)
    measured = (
        f"{difference.difference:.2g} ± {difference.spread:.2g} (two standard errors over {difference.batches} "
        f"held-out batches) after {nearest.batches} training batches each"
    )
    if not ties:
        return f"{name} won the race: its held-out loss is below that of {nearest.term!r} by {measured}."
    tied = ", ".join(map(repr, ties))
    more = "" if difference.needed is None else f" About {difference.needed} held-out batches would tell this apart."
    return (
        f"A tie: {name} is trained, but {tied} {'was' if len(ties) == 1 else 'were'} not told apart from it; the "
        f"held-out loss of {nearest.term!r} is above by {measured}.{more} A larger race.allowance or race.held_out "
        "goes on longer."
    )


def race_warning(result: RaceResult) -> str | None:
    """Return a warning if the race decides nothing, else ``None``."""
    if not result.has_learnt:
        return (
            f"no candidate has lowered the held-out loss of the checkpoint in {batches(result.winner.batches)} by more "
            "than two standard errors, so that this race says little: give it a larger race.allowance or other "
            "race.rates."
        )
    return verdict(result) if result.ties else None
