"""Tables for causal language models without labels, which an option of their own names."""

from datasets import Dataset

from beft_lightning.data.table.kinds.kind import TableKind


class UnlabelledKind(TableKind):
    """Texts to write or to read; nothing in a table itself tells that it is of such a kind."""

    def fits(self) -> bool:
        """Return false: the kind is named."""
        return False

    def matches(self, table: Dataset) -> bool:
        """Return false: the kind is named."""
        return False

    def strata(self, table: Dataset) -> list[str]:
        """Return one stratum for all."""
        return [""] * len(table)
