"""The methods of training by name, and the meaning of ``tune``."""

from collections.abc import Mapping, Sequence
from typing import Any

from beft_lightning.errors import BeftError
from beft_lightning.tuning.full import FullTuning
from beft_lightning.tuning.method import TuningMethod, check_option_names
from beft_lightning.tuning.peft_adapters import DoraTuning, Ia3Tuning, LoraTuning, VeraTuning
from beft_lightning.tuning.prefix import PrefixTuning
from beft_lightning.tuning.random_mask import RandomMaskTuning, RandomRowTuning
from beft_lightning.tuning.reparametrization import LowRankBiasTuning, ScalarBiasTuning, VeraBiasTuning
from beft_lightning.tuning.terms import AllBiasTuning, HeadTuning, TermTuning

#: The value of ``tune`` that leaves the choice to a BiasSelectionCallback.
AUTO = "auto"

#: Value of ``tune`` -> method of training. Any other value names bias terms.
METHODS: Mapping[str, type[TuningMethod]] = {
    method.name: method
    for method in (
        *(AllBiasTuning, HeadTuning, FullTuning),
        *(RandomMaskTuning, RandomRowTuning),
        *(LowRankBiasTuning, VeraBiasTuning, ScalarBiasTuning),
        *(LoraTuning, DoraTuning, VeraTuning, Ia3Tuning),
        PrefixTuning,
    )
}


def tuned_terms(tune: str | Sequence[str]) -> list[str]:
    """Return ``tune`` as a list.

    >>> tuned_terms("query, value.3") == tuned_terms(["query", "value.3"])
    True
    """
    return [name.strip() for name in tune.split(",")] if isinstance(tune, str) else list(tune)


def tuning_method(tune: str | Sequence[str], options: Mapping[str, Any] | None = None) -> TuningMethod | None:
    """Make the method of training that ``tune`` and ``tune_options`` describe.

    Args:
        tune: A key of :data:`METHODS`; bias terms such as ``value``, ``query,value`` or ``["query", "value.3"]``; or
            ``auto``.
        options: Values for fields of the method.

    Returns:
        The method, or None for ``auto``, where a BiasSelectionCallback decides.

    Raises:
        BeftError: If the method has no such option, or its value is impossible. An unknown term is found by
            :meth:`~beft_lightning.tuning.method.TuningMethod.check`, since terms depend on the model.
    """
    options = options or {}
    names = tuned_terms(tune)
    if names == [AUTO]:
        if options:
            raise BeftError("tune_options belong to a method of training, and tune 'auto' leaves it to a callback.")
        return None
    if len(names) == 1 and names[0] in METHODS:
        return METHODS[names[0]].from_options(options)
    check_option_names(",".join(names), options, ())
    return TermTuning(terms=tuple(names), methods=tuple(METHODS))
