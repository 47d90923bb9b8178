"""FitNet's hint loss."""

import torch.nn.functional as F
from torch import Tensor

from kdlab.errors import UsageError
from kdlab.losses.base import FeatureLoss


class HintLoss(FeatureLoss):
    """Mean squared difference of features, over all of their elements.

    The shapes must be equal: a regressor, which belongs to the method, makes them so.

    Source: Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015. The paper writes half of the summed squares;
    benchmarks use the mean, as here.
    """

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean squared difference.

        Raises:
            UsageError: if the shapes differ.
        """
        if student.shape != teacher.shape:
            raise UsageError(
                f"HintLoss got student features of shape {list(student.shape)} and teacher features of shape "
                f"{list(teacher.shape)}, but they must be equal; choose layers of equal size or put a regressor between"
            )
        return F.mse_loss(student, teacher)
