"""Serving: many adapters over one base."""

from beft_lightning.serving.adapter import Adapter
from beft_lightning.serving.bank import AdapterBank

__all__ = ["Adapter", "AdapterBank"]
