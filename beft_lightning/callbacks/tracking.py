"""What reaches the trainer's loggers beside metrics."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from beft_lightning.errors import BeftError
from beft_lightning.pictures.style import read_pixels

#: What is logged of a LanguageTaskModule, of its data, and of the trainer, where they have it.
_MODULE = ("backbone", "tune", "tune_options", "dtype_name", "random_init", "schedule")
_DATA = ("train_size", "dev_size", "eval_size", "batch_size", "demonstrations", "seed")
_TRAINER = ("max_epochs", "max_steps", "precision", "world_size", "accumulate_grad_batches", "gradient_clip_val")


def start_loggers(trainer: Trainer) -> None:
    """Let the loggers connect to their services, before anything that takes long.

    Raises:
        BeftError: If one cannot.
    """
    for logger in trainer.loggers:
        try:
            _ = getattr(logger, "experiment", None)
        except Exception as error:  # each service has its own
            if isinstance(error, OSError) and error.filename:
                raise  # a folder that cannot be written; the error says which
            name = type(logger).__name__
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise BeftError(
                f"trainer.logger {name} did not start: {reason} Check its options and that its service can be reached, "
                "or take another one (lightning.pytorch.loggers.CSVLogger needs nothing)."
            ) from error


def log_hyperparameters(trainer: Trainer, module: LightningModule, selection: dict[str, Any]) -> None:
    """Give the loggers what a fit is made with.

    Args:
        trainer: The trainer, with its optimizers.
        module: The module; what modules other than a LanguageTaskModule are made with is theirs to log.
        selection: What is known of the selection of bias terms.
    """
    task = getattr(module, "task", None)
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    values: dict[str, Any] = {
        "model": _known(module, _MODULE),
        "task": getattr(task, "name", None),
        "data": _known(getattr(trainer, "datamodule", None), _DATA),
        "trainer": _known(trainer, _TRAINER),
        "optimizer": ", ".join(type(optimizer).__name__ for optimizer in trainer.optimizers),
        "learning_rate": groups[0]["lr"] if groups else None,
        "selection": selection,
    }
    for logger in trainer.loggers:
        logger.log_hyperparams({name: value for name, value in values.items() if value not in (None, {})})


def _known(part: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(part, name) for name in names if hasattr(part, name)}


@rank_zero_only
def log_picture(trainer: Trainer, name: str, path: Path) -> None:
    """Give a picture to the loggers that can show one: of TensorBoard, Weights & Biases, and MLflow.

    Args:
        trainer: The trainer.
        name: Name of the picture.
        path: Its file.
    """
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, read_pixels(path), trainer.global_step, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            logger.log_image(name, [str(path)])
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_artifact(logger.run_id, str(path))
