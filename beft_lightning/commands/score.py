"""The command ``score``: the scores of the bias terms, without training."""

from pathlib import Path

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from beft_lightning.callbacks import BiasSelectionCallback
from beft_lightning.callbacks.selection_checks import RACE
from beft_lightning.errors import BeftError
from beft_lightning.files import check_output_folder
from beft_lightning.scoring.approaches import APPROACHES


def score(
    trainer: Trainer,
    selection: BiasSelectionCallback,
    module: LightningModule,
    data: LightningDataModule | None,
    out: Path,
) -> None:
    """Score the bias terms, and write ``scores.json``, ``scores.csv`` and ``scores.png``.

    Args:
        trainer: The trainer; ``selection`` is among its callbacks.
        selection: The callback that scores.
        module: The module whose bias terms are scored; it is not trained.
        data: Where the training batches come from.
        out: Folder for the files.

    Raises:
        BeftError: If ``out`` is a file, or the options of ``selection`` leave nothing to score.
    """
    check_output_folder(out)
    if selection.scores_file is not None:
        raise BeftError("score makes new scores: leave out --selection.scores.")
    if selection.is_fixed:
        raise BeftError(
            f"score has nothing to do with approach 'fixed': choose one of {', '.join([*APPROACHES, RACE])}."
        )
    assert trainer.fit_loop is not None
    trainer.fit_loop.max_epochs = 0  # A fit of no epochs ends right after the selection.
    selection.folder = out
    trainer.fit(module, datamodule=data)
    if selection.scores is None and selection.raced is None:
        others = [name for name, approach in APPROACHES.items() if not approach.needs_pretrained_biases]
        raise BeftError(
            f"nothing was scored: biases that all start at zero cannot be ranked by {selection.approach}. Set "
            f"--selection.approach to one of {', '.join(others)}."
        )
    rank_zero_info(f"score finished after {selection.seconds:.1f} seconds; the scores are in {out}")
