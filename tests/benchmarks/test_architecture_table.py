"""The table of architectures counts its rows, and gives each reason in plain words."""

import pytest

from benchmarks.architecture_table import Row, page

ALL = ("query", "key", "value")


def test_the_page_counts_what_works() -> None:
    rows = [
        Row("bert", ALL, scored=True, trained=True, exported=True),
        Row("llama", ALL, scored=True, trained=True),
        Row("vit", ALL, scored=True, parts=("eye", "mind")),
        Row("resnet", reason="ArchitectureError: no attention was seen in a forward pass"),
        Row("esm", reason="the default model cannot be built: TypeError"),
        Row("blt", reason="a small twin would have 408,939,488 parameters"),
    ]
    text = page(rows)
    assert "6 were tried. 5 of these can be built" in text
    assert "in 1 of these no attention was seen. Of the other 4," in text
    assert "**found** in 3, **scored** in 3, **trained** in 2, **exported** in 1." in text
    assert "| `llama` | query, key, value | yes | yes | no |" in text
    assert "| `vit` | query, key, value; in `eye`, `mind` | yes | no | no |" in text
    assert "| `blt` | a small twin has 408,939,488 parameters, more than are run |" in text
    assert "No attention was seen in `resnet`." in text


@pytest.mark.parametrize(
    ("reason", "plain"),
    [
        (
            "model: 4 layers with the name of a query were not seen in attention, such as 'visual.0.qkv'. What was",
            "`visual.0.qkv` was not seen in attention",
        ),
        ("AssertionError: query.0 changes ['weights'] of an attention", "a change of query alone changes weights"),
        (
            "watch its attention (with x TypeError: f() missing 1 required positional argument: 'grid_thw'; a small "
            "twin would have 9,000 parameters). Run it",
            "the inputs that are made up lack grid_thw",
        ),
        ("TimeoutError: ", "not done within 60 seconds of CPU time"),
        ("ValueError: an odd | one; another", "ValueError: an odd / one"),
    ],
)
def test_a_reason_is_what_went_wrong_first(reason: str, plain: str) -> None:
    assert f"| `one` | {plain} |" in page([Row("one", reason=reason)])
