"""Messages of libraries that say nothing about a run, left out of the command line's output."""

import logging
import sys
import warnings


class _Without(logging.Filter):
    """Drops messages that hold one of some texts."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        super().__init__()
        self.texts = texts

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not any(text in message for text in self.texts)


#: Logger of Lightning -> what is left out of its messages.
_NOISE = {
    # Suggestions to install other products
    "lightning.pytorch.utilities.rank_zero": _Without(("litlogger", "litmodels", "TPU available")),
    # Once for every checkpoint that is written
    "lightning.pytorch.trainer.connectors.checkpoint_connector": _Without(("`weights_only` was not set",)),
}


def leave_out_noise() -> None:
    """Leave out what says nothing about the run, and the bars of other libraries where there is no terminal."""
    for name, noise in _NOISE.items():
        logging.getLogger(name).addFilter(noise)
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
