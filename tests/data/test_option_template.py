"""Prompts with options of the row's own."""

from beft_lightning.data.option_template import OptionTemplate


def test_options_follow_the_prompt_after_one_space() -> None:
    row = {"q": "why", "a": "so ", "b": "no", "label": 1}
    (example,) = OptionTemplate("{q} ({a}/{b})?", ("a", "b"))(row)
    assert (example.prompt, example.options, example.labels) == ("why (so /no)?", (" so", " no"), (1,))
    assert OptionTemplate("{q}\n", ("a", "b"))(row)[0].options == ("so", "no")


def test_a_row_to_predict_has_no_label() -> None:
    (example,) = OptionTemplate("{q}", ("all",))({"q": "why", "all": ["x", "y", "z"]})
    assert (example.options, example.labels, example.candidates) == ((" x", " y", " z"), (), ("x", "y", "z"))
