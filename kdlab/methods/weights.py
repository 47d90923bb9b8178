"""How much the labels and the teacher count, in either of the two ways the literature says it."""

from collections.abc import Mapping
from typing import NamedTuple

from kdlab.errors import UsageError
from kdlab.losses.base import nonnegative


class TermWeights(NamedTuple):
    """Factors of the label term and of the logit term."""

    label: float
    logit: float

    def by_name(self) -> dict[str, float]:
        """As the user names them."""
        return {"label_weight": self.label, "logit_weight": self.logit}


def require_one(weights: Mapping[str, float], otherwise: str = "there is nothing to learn") -> None:
    """Refuse weights that are all 0.

    Args:
        weights: two or more, by name.
        otherwise: what follows if they are.

    Raises:
        UsageError: if they are.
    """
    if not any(weights.values()):
        *names, last = weights
        both = "both" if len(weights) == 2 else "all"
        raise UsageError(f"{', '.join(names)} and {last} are {both} 0, so {otherwise}; raise one")


def term_weights(
    alpha: float | None, label_weight: float | None, logit_weight: float | None, default: TermWeights
) -> TermWeights:
    """Return the weights that the user gave by name or by `alpha`.

    Args:
        alpha: multiplies the **label** term: ``label = alpha, logit = 1 - alpha``. (Half of the literature uses
            the same letter for the other term.)
        label_weight: factor of the label term.
        logit_weight: factor of the logit term.
        default: what holds where nothing is given.

    Raises:
        UsageError: if alpha and a weight are both given, alpha is no share, or a weight is negative.
    """
    if alpha is None:
        label = default.label if label_weight is None else label_weight
        logit = default.logit if logit_weight is None else logit_weight
        for name, weight in (("label_weight", label), ("logit_weight", logit)):
            nonnegative(name, weight)
        return TermWeights(label, logit)
    for name, given in (("label_weight", label_weight), ("logit_weight", logit_weight)):
        if given is not None:
            raise UsageError(
                f"alpha: {alpha:g} and {name}: {given:g} are both given, but alpha is short for "
                f"label_weight: {alpha:g}, logit_weight: {1 - alpha:g}; keep one of the two"
            )
    if not 0 <= alpha <= 1:
        raise UsageError(f"alpha is {alpha:g}, but it is the share of the label term: choose 0 <= alpha <= 1")
    return TermWeights(alpha, 1 - alpha)
