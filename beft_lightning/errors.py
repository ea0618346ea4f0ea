"""The errors of this package: each says what was wrong, where, what is valid and how to fix it."""


class BeftError(Exception):
    """Base of every error that the user can cause and mend; the command line prints it without a traceback."""


class ArchitectureError(BeftError):
    """The model's type is unknown, or its modules are not where its architecture says."""


class TermError(BeftError):
    """A bias term was asked for that does not exist, cannot be selected, or is named wrongly."""


class ScoringError(BeftError):
    """The scoring pass cannot run or gave no usable scores."""


class DataError(BeftError):
    """A data file is missing, malformed or holds something the task does not know."""


class BackboneError(BeftError):
    """A pretrained model or tokenizer could not be loaded."""


class CheckpointError(BeftError):
    """A checkpoint is missing, unreadable, or belongs to another model."""


class ExportError(BeftError):
    """A trained model cannot be written in the format or to the place asked for."""


class NonFiniteError(BeftError):
    """A loss, a gradient or a trained value is NaN or infinite."""
