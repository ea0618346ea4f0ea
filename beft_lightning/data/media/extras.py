"""Packages that only images or sounds need."""

from importlib.util import find_spec

from beft_lightning.errors import DataError


def check_extra(module: str, extra: str, what: str) -> None:
    """Check that a package of an extra is installed.

    Args:
        module: Name under which it is imported.
        extra: The extra of this package that installs it.
        what: What needs it, for the error.

    Raises:
        DataError: If it is not.
    """
    if find_spec(module) is None:
        raise DataError(f"{what} need the package {module}: pip install 'beft-lightning[{extra}]'.")
