"""The optimizer of the published experiments."""

from typing import Any

from torch.optim import Adam
from torch.optim.optimizer import ParamsT

from beft_lightning.errors import BeftError

#: The largest learning rate. Adam moves every value by about as much in a step, and pretrained values are around 1.
MAX_LEARNING_RATE = 10.0


class ReferenceAdam(Adam):
    r"""Adam with epsilon added to the *uncorrected* second moment: the update rule of the published runs.

    .. math:: p \leftarrow p - \eta \frac{\sqrt{1-\beta_2^t}}{1-\beta_1^t} \cdot \frac{m}{\sqrt{v} + \epsilon}

    This is the "epsilon hat" form of Kingma and Ba (arXiv 1412.6980, section 2), as in the former AdamW of
    transformers, without weight decay. It differs from ``torch.optim.Adam`` in that the effective epsilon is
    :math:`\epsilon/\sqrt{1-\beta_2^t}`, 32 times larger at the first step: rounding noise, such as the gradient of
    an inert key bias, stays small instead of being normalised into steps as large as everyone else's.

    Args:
        params: Parameters or parameter groups.
        lr: Learning rate.
        betas: Decay rates of the two running moments.
        eps: Added to the square root of the uncorrected second moment.
    """

    def __init__(
        self, params: ParamsT, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-6
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps)

    def step(self, closure: Any = None) -> Any:
        """Take one step: torch's Adam with eps/sqrt(1-beta2^t) takes exactly that of the formula above."""
        for group in self.param_groups:
            # Kept in the groups, so that a resumed optimizer goes on counting.
            group["steps"] = group.get("steps", 0) + 1
            group["eps"] = group.setdefault("eps_hat", group["eps"]) / (1 - group["betas"][1] ** group["steps"]) ** 0.5
        return super().step(closure)


def check_learning_rate(value: float, option: str) -> None:
    """Check a learning rate of :class:`ReferenceAdam`.

    Args:
        value: The learning rate.
        option: Name of the option that it comes from, for the message.

    Raises:
        BeftError: If it is not above 0, above :data:`MAX_LEARNING_RATE`, or no number.
    """
    if not 0 < value <= MAX_LEARNING_RATE:  # false for NaN, too
        raise BeftError(
            f"{option} is {value:g}: it must be above 0 and at most {MAX_LEARNING_RATE:g}. Biases are trained with "
            "1e-4 to 1e-2."
        )
