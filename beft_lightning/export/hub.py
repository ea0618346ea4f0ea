"""The hub of Hugging Face: the licence of a base there, and the upload of an export."""

from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from yaml import YAMLError  # type: ignore[import-untyped]

from beft_lightning.backbones import resolve_backbone
from beft_lightning.errors import ExportError


def check_repository(name: str) -> None:
    """Check the form of a repository's name.

    Raises:
        ExportError: If it is none.
    """
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ExportError(f"--push {name}: {error} Give USER/NAME.") from error


def push(path: Path, repository: str, api: Any = None) -> str:
    """Upload an export to a repository, which is made as a private one if there is none.

    Args:
        path: The folder, or the file.
        repository: ``USER/NAME``.
        api: The client; by default huggingface_hub's own, with the token that this machine is logged in with.

    Returns:
        The address of the repository.

    Raises:
        ExportError: If the hub refuses, or cannot be reached. The export stays where it is.
    """
    api = api or HfApi()
    try:
        address = api.create_repo(repository, private=True, exist_ok=True)
        if path.is_dir():
            api.upload_folder(repo_id=repository, folder_path=path, commit_message="Add the model")
        else:
            api.upload_file(
                repo_id=repository, path_or_fileobj=path, path_in_repo=path.name, commit_message="Add the model"
            )
    except Exception as error:  # huggingface_hub lets through what its HTTP client raises, which depends on its version
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExportError(
            f"{path} is written, and could not be uploaded to {repository!r} ({reason}). Check the name, the network "
            f"and the login (`hf auth login`); then `hf upload {repository} {path}` uploads it."
        ) from error
    rank_zero_info(f"Uploaded {path} to {address}")
    return str(address)


def base_licence(backbone: str) -> str | None:
    """Return the licence that the card of a base gives, if the card is on this machine."""
    card: Any = Path(resolve_backbone(backbone)) / "README.md"
    if not card.is_file():
        try:
            card = try_to_load_from_cache(backbone, "README.md")
        except HFValidationError:
            return None
    if not isinstance(card, str | Path):
        return None
    try:
        licence = ModelCard.load(card, ignore_metadata_errors=True).data.license
    except (OSError, ValueError, YAMLError):
        return None
    return licence if isinstance(licence, str) else None
