"""The command ``compare``: several methods of training side by side, in one table."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import rich
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from beft_lightning.commands.compare_report import results_table, write_report
from beft_lightning.commands.comparison import Comparison
from beft_lightning.data import LanguageDataModule
from beft_lightning.files import check_output_folder
from beft_lightning.tasks import LanguageTaskModule


def compare(
    make_trainer: Callable[..., Trainer],
    configuration: str,
    module: LanguageTaskModule,
    data: LanguageDataModule,
    tunes: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    rates: Mapping[str, float] | Literal["auto"] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Train one module with several methods, each with several seeds, and report all results in a folder.

    Args:
        make_trainer: Makes a trainer, given ``callbacks`` and ``default_root_dir``.
        configuration: All options that results depend on, as text.
        module: A module that has not loaded its backbone yet.
        data: The data.
        tunes: What to train: values of ``tune``, and ``zero_shot``.
        seeds: Seeds of the runs.
        out: Folder for ``results.csv``, ``results.md``, pictures and each run's own file.
        rates: Learning rates of single methods, or ``auto``: a short race finds the rate of each run.
        options: ``tune_options`` of single methods.

    Raises:
        BeftError: If ``out`` is a file or holds other results, or something cannot be compared.
    """
    check_output_folder(out)
    with TemporaryDirectory(prefix="beft-") as scratch:

        def trainer_with(callbacks: list[Callback]) -> Trainer:
            return make_trainer(callbacks=callbacks, default_root_dir=scratch)

        comparison = Comparison(module, data, trainer_with, out, configuration, rates, options)
        comparison.run(tunes, seeds)
        runs = comparison.results()
        write_report(runs, out)  # Before the measures, which may fail.
        write_report(runs, out, comparison.measure(runs))
    rich.print(results_table(runs))
    rank_zero_info(f"Wrote results.csv, results.md and pictures to {out}")
