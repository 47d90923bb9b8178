"""Two students on the same images: does one answer better, beyond the chance of which images were tested?

Shapes: N samples, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from scipy.stats import binomtest

from kdlab.analysis.inputs import NO_SAMPLES, Values, read_labels, read_logit_pair, share


@dataclass(frozen=True)
class Paired:
    """Right and wrong answers of two students to the same split.

    The p-value speaks of other test images, not of other seeds: two runs of one method can differ "significantly".
    Source: McNemar, Note on the sampling error of the difference between correlated proportions, 1947; exact form.

    Attributes:
        n: samples.
        both_right: samples that both answer correctly.
        only_first_right: samples that only the first answers correctly.
        only_second_right: samples that only the second answers correctly.
        both_wrong: samples that both answer wrongly.
        agreement: share of samples to which both give the same answer.
        accuracy_difference: accuracy of the first minus that of the second.
        mcnemar_p: two-sided p-value of a fair coin between only_first_right and only_second_right.
        undefined: field that is None -> why.
    """

    n: int
    both_right: int
    only_first_right: int
    only_second_right: int
    both_wrong: int
    agreement: float | None
    accuracy_difference: float | None
    mcnemar_p: float | None
    undefined: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_logits(cls, first_logits: Values, second_logits: Values, labels: Values) -> Paired:
        """Compare two students' ``[N, K]`` logits of samples with ``[N]`` labels.

        Raises:
            UsageError: if shapes, labels or values do not fit.
        """
        first, second = read_logit_pair(first_logits, "first logits", second_logits, "second logits")
        truth = read_labels(labels, "labels", first)
        one, other = first.argmax(axis=1), second.argmax(axis=1)
        one_right, other_right, n = one == truth, other == truth, len(truth)
        only_first, only_second = int((one_right & ~other_right).sum()), int((other_right & ~one_right).sum())
        differ = only_first + only_second
        undefined = {} if differ else {"mcnemar_p": "there is no sample that exactly one student answers correctly"}
        if n == 0:
            undefined = dict.fromkeys(("agreement", "accuracy_difference", "mcnemar_p"), NO_SAMPLES)
        return cls(
            n=n,
            both_right=int((one_right & other_right).sum()),
            only_first_right=only_first,
            only_second_right=only_second,
            both_wrong=int((~one_right & ~other_right).sum()),
            agreement=share(int((one == other).sum()), n),
            accuracy_difference=share(only_first - only_second, n),
            mcnemar_p=float(binomtest(only_first, differ).pvalue) if differ else None,
            undefined=undefined,
        )
