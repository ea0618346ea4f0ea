"""Tables without labels are of a kind only if an option says so."""

import pytest
from datasets import Dataset

from beft_lightning.data.table.columns import Columns
from beft_lightning.data.table.kinds import find_kind
from beft_lightning.data.table.kinds.free_text import FreeTextKind
from beft_lightning.errors import DataError

TABLE = Dataset.from_dict({"text": ["one", "two", "three"]})
COLUMNS = Columns.given("text", "label")


def test_a_table_itself_does_not_tell() -> None:
    kind = FreeTextKind(COLUMNS, "t.csv")
    assert not kind.fits()
    assert not kind.matches(TABLE)
    with pytest.raises(DataError, match="t.csv: no column 'label'"):
        find_kind(None, COLUMNS, TABLE, "t.csv")
    assert isinstance(find_kind("text", COLUMNS, TABLE, "t.csv"), FreeTextKind)


def test_validation_rows_are_drawn_from_all() -> None:
    assert len(set(FreeTextKind(COLUMNS, "t.csv").strata(TABLE))) == 1
    assert len(FreeTextKind(COLUMNS, "t.csv").strata(TABLE)) == len(TABLE)
