"""What a student makes of wrong training labels: does it see through them or learn them by heart?

Shapes: N samples, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kdlab.analysis.inputs import NO_SAMPLES, Values, read_labels, read_logits, share


@dataclass(frozen=True)
class Denoising:
    """Answers to training images, some of which carry a wrong label.

    A label is noisy where the training label differs from the data set's own. Every noisy sample is counted once:
    n_noisy = corrected + memorised + other.

    Attributes:
        n: training samples.
        n_noisy: samples with a wrong training label.
        corrected: noisy samples answered with the true class.
        memorised: noisy samples answered with the wrong training label.
        other: noisy samples answered with a third class.
        corrected_rate: corrected / n_noisy.
        memorised_rate: memorised / n_noisy.
        n_clean: samples whose training label is true.
        clean_accuracy: share of those answered correctly.
        undefined: field that is None -> why.
    """

    n: int
    n_noisy: int
    corrected: int
    memorised: int
    other: int
    corrected_rate: float | None
    memorised_rate: float | None
    n_clean: int
    clean_accuracy: float | None
    undefined: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_logits(cls, logits: Values, training_labels: Values, true_labels: Values) -> Denoising:
        """Count the answers of ``[N, K]`` logits, given ``[N]`` labels as trained on and as they are.

        Raises:
            UsageError: if shapes, labels or values do not fit.
        """
        z = read_logits(logits, "logits")
        trained = read_labels(training_labels, "training labels", z)
        truth = read_labels(true_labels, "true labels", z)
        answer, noisy = z.argmax(axis=1), trained != truth
        n, n_noisy = len(z), int(noisy.sum())
        corrected = int((noisy & (answer == truth)).sum())
        memorised = int((noisy & (answer == trained)).sum())
        undefined: dict[str, str] = {}
        if n_noisy == 0:
            undefined |= dict.fromkeys(("corrected_rate", "memorised_rate"), "no training label is noisy")
        if n_noisy == n:
            undefined["clean_accuracy"] = "every training label is noisy" if n else NO_SAMPLES
        return cls(
            n=n,
            n_noisy=n_noisy,
            corrected=corrected,
            memorised=memorised,
            other=n_noisy - corrected - memorised,
            corrected_rate=share(corrected, n_noisy),
            memorised_rate=share(memorised, n_noisy),
            n_clean=n - n_noisy,
            clean_accuracy=share(int((~noisy & (answer == truth)).sum()), n - n_noisy),
            undefined=undefined,
        )
