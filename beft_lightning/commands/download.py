"""The command ``download``: everything a fit reads, into the caches of this machine."""

from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info


def download(module: LightningModule, data: LightningDataModule) -> None:
    """Fetch the backbone and the data.

    Args:
        module: The module whose backbone is fetched.
        data: The data to fetch.
    """
    data.prepare_data()
    data.setup("fit")
    module.configure_model()
    rank_zero_info("Everything is in the caches; set HF_HUB_OFFLINE=1 where there is no network.")
