"""A method of training as a comparison uses it."""

from typing import Any

from beft_lightning.commands.compared_method import ComparedMethod


def test_each_seed_draws_another_mask_unless_the_mask_has_a_seed(make: Any) -> None:
    """Its spread is part of the control's."""
    pristine = make()._load(0)
    masks = []
    for seed, options in ((0, {}), (0, {}), (1, {}), (1, {"seed": 0})):
        module = ComparedMethod("random_mask", 0.1, options).copy_of(pristine, seed)
        masks.append({name: value.tolist() for name, value in module.named_buffers() if name.endswith("index")})
    assert masks[0] == masks[1] == masks[3] != masks[2]


def test_a_copy_shares_the_matrices_that_its_method_leaves_alone(make: Any) -> None:
    pretrained = make()._load(0)
    before = dict(pretrained.named_parameters())
    for tune, shares in (("value", True), ("full", False)):
        after = dict(ComparedMethod(tune, 0.1).copy_of(pretrained, 0).named_parameters())
        matrix, head = "model.bert.encoder.layer.0.attention.self.query.weight", "model.classifier.weight"
        assert (after[matrix] is before[matrix]) == shares
        assert after[head] is not before[head]
