"""Messages that say nothing about a run, left out of the command line's output, and the form of warnings in it."""

import logging
import shutil
import sys
import textwrap
import warnings
from pathlib import Path

_PACKAGE = Path(__file__).parent


class _Without(logging.Filter):
    """Drops messages that hold one of some texts."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        super().__init__()
        self.texts = texts

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not any(text in message for text in self.texts)


#: Logger -> what is left out of its messages.
_NOISE = {
    # Suggestions to install other products
    "lightning.pytorch.utilities.rank_zero": _Without(("litlogger", "litmodels", "TPU available")),
    # Once for every checkpoint that is written
    "lightning.pytorch.trainer.connectors.checkpoint_connector": _Without(("`weights_only` was not set",)),
    # When something asks whether DeepSpeed is in use, on a machine without GPU
    "DeepSpeed": _Without(("Setting accelerator to CPU",)),
}


def leave_out_noise(command: str) -> None:
    """Leave out what says nothing about the run, and the bars of other libraries where there is no terminal.

    Args:
        command: The command that runs.
    """
    for name, noise in _NOISE.items():
        logging.getLogger(name).addFilter(noise)
    warnings.formatwarning = _message
    if command != "fit":  # Only a fit goes on with what a callback knows of its checkpoints.
        warnings.filterwarnings("ignore", message="The dirpath has changed")
    # Lightning's own use of torch
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")
    # Whatever the interval, the line of an epoch has the loss.
    warnings.filterwarnings("ignore", message="The number of training batches .* is smaller than the logging interval")
    leave_out_bars()


def leave_out_bars() -> None:
    """Leave out the progress bars of other libraries where there is no terminal."""
    if not sys.stderr.isatty():
        import datasets
        import transformers

        transformers.utils.logging.disable_progress_bar()
        datasets.disable_progress_bars()


def _message(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Format a warning for a reader: the place in the code only if it is another library's, lines broken at words."""
    text = f"warning: {message}"
    if not Path(filename).is_relative_to(_PACKAGE):
        text += f" ({filename}:{lineno})"
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        text = textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
    return f"{text}\n"
