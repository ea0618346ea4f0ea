"""The report on the scores of a run: printed, written into its folder, and logged."""

from pathlib import Path

import rich
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from beft_lightning.callbacks.run_folder import own_path, run_folder
from beft_lightning.callbacks.tracking import log_picture
from beft_lightning.pictures import race_curves, save_picture, score_picture
from beft_lightning.scoring.race.report import race_table, race_warning, verdict
from beft_lightning.scoring.race.scores import RaceScores
from beft_lightning.scoring.report import near_tie_warning, ranking_table
from beft_lightning.scoring.score_table import BiasScores


def report(trainer: Trainer, scores: BiasScores | RaceScores, folder: str | Path | None) -> None:
    """Print the ranking, write the scores and their picture, and log each term's score.

    Args:
        trainer: The trainer of the run; all processes call this.
        scores: What to report.
        folder: Where the files are written, over those of an earlier run; None for the run's own folder, if it has one.
    """
    own = run_folder(trainer) if folder is None else None  # Asked on every rank: it is broadcast.
    if not trainer.is_global_zero:
        return
    if isinstance(scores, RaceScores):
        table, warning, by_term = race_table(scores), race_warning(scores.result), scores.scores
        rank_zero_info(verdict(scores.result))
    else:
        table, warning = ranking_table(scores), near_tie_warning(scores)
        by_term = {term: entry.score for term, entry in scores.terms.items()}
    rich.print(table)
    if warning:
        rank_zero_warn(warning)
    for logger in trainer.loggers:
        logger.log_metrics({f"bias_score/{term}": score for term, score in by_term.items()}, step=0)
    file = own_path(trainer, own, "scores.json") if own is not None else folder and Path(folder) / "scores.json"
    if file:
        scores.save(file.parent, file.stem)
        figure = race_curves(scores) if isinstance(scores, RaceScores) else score_picture(scores)
        log_picture(trainer, "bias_scores", save_picture(figure, file))
