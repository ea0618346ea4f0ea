"""The errors of this package: each says what was wrong, where, what is valid and how to fix it."""

import errno


class BeftError(Exception):
    """Base of every error that the user can cause and mend; the command line prints it without a traceback."""


class ArchitectureError(BeftError):
    """The model's type is unknown, or its modules are not where its architecture says."""


class NoAttentionError(ArchitectureError):
    """The model ran, and no attention was seen in it."""


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


def system_error(error: Exception) -> BeftError | None:
    """Return what to tell the user about an error of the operating system; None if the error is of another kind.

    A full disk, missing rights, a file in the way, and lack of memory have their cause outside of the program, where no
    traceback leads.
    """
    text = str(error).strip() or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename2 or error.filename}: " if error.filename else ""
        reason = f"{place}{error.strerror}"
        remedy = _REMEDIES.get(error.errno or 0, "Check the path, and that this user may read and write there")
        return BeftError(f"{reason}. {remedy}.")
    if isinstance(error, OSError):
        return BeftError(text)
    first = text.splitlines()[0]
    failed = isinstance(error, RuntimeError)  # torch's class for all of these
    if isinstance(error, MemoryError) or (failed and ("out of memory" in text or "can't allocate memory" in text)):
        return BeftError(
            f"out of memory ({first}). Take a smaller data.batch_size, a smaller precision of the frozen weights "
            "(model.dtype), or a machine with more memory."
        )
    if failed and "unable to mmap" in text:
        return BeftError(f"a file cannot be mapped into memory ({first}). Check its size, and the limits of memory.")
    if failed and "DataLoader worker (pid" in text:
        return BeftError(
            f"a process that loads data has died ({first}), most often for lack of memory. Set data.num_workers to 0 "
            "to see its own error, or take a machine with more (shared) memory."
        )
    return None


_REMEDIES = {
    errno.ENOSPC: "Free some space, or write to another place (trainer.default_root_dir, --out)",
    errno.EDQUOT: "Free some space, or write to another place (trainer.default_root_dir, --out)",
    errno.EFBIG: "Raise the limit of a file's size (ulimit -f), or write to another place",
    errno.EROFS: "Write to another place (trainer.default_root_dir, --out, or HF_HOME and BEFT_CACHE for caches)",
    errno.EACCES: "Get the rights, or use another place (trainer.default_root_dir, --out, HF_HOME, BEFT_CACHE)",
    errno.EPERM: "Get the rights, or use another place (trainer.default_root_dir, --out, HF_HOME, BEFT_CACHE)",
    errno.ENOTDIR: "A file is where a folder is needed: remove it, or give another path",
    errno.EEXIST: "A file or a broken link is in the way: remove it, or give another path",
    errno.EISDIR: "A folder is where a file is needed: remove it, or give another path",
    errno.EMFILE: "Raise the limit of open files (ulimit -n)",
    errno.ENOMEM: "Take a machine with more memory, or load less at once",
}
