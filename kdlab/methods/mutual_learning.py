"""Several students that teach each other, without a teacher.

Shapes: B images, K classes.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from kdlab.errors import UsageError
from kdlab.losses import SoftTargets
from kdlab.losses.base import nonnegative
from kdlab.methods.base import Method
from kdlab.methods.checks import try_network
from kdlab.methods.weights import require_one
from kdlab.types import Batch, Outputs


class MutualLearning(Method):
    """Train a student and its peers together, each on labels and on the answers of the others.

    ``label`` = label_weight x cross-entropy, summed over all networks;
    ``mutual`` = mutual_weight x T^2 KL(other || network), mean over the others, summed over all networks. Nobody is
    changed to be easier to follow: the other's answer carries no gradient. All networks learn from the same step,
    where the paper updates one after the other.

    The first network is the student that is tested and exported; the accuracies of all are logged.

    Source: Zhang, Xiang, Hospedales & Lu, Deep Mutual Learning, 2018.

    Args:
        peers: the other networks, one or more, of any architecture.
        temperature: T of the soft targets.
        label_weight: factor of the label term.
        mutual_weight: factor of the mutual term.
    """

    def __init__(
        self,
        peers: list[nn.Module],
        temperature: float = 1.0,
        label_weight: float = 1.0,
        mutual_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(teacher=None, **kwargs)
        if not peers:
            raise UsageError("peers is empty, but learning from each other takes two; list one network or more")
        self.peers = nn.ModuleList(peers)
        self.member_names = ("student", *(f"peer{number}" for number in range(1, len(peers) + 1)))
        self.soft_targets = SoftTargets(temperature)
        self.label_weight = nonnegative("label_weight", label_weight)
        self.mutual_weight = nonnegative("mutual_weight", mutual_weight)
        require_one({"label_weight": label_weight, "mutual_weight": mutual_weight})

    @property
    def networks(self) -> list[nn.Module]:
        """The student and its peers."""
        return [self.student, *self.peers]

    def ask_student(self, batch: Batch) -> Outputs:
        """Return the student's outputs, with those of all networks as members."""
        return self.evaluate(batch.image)

    def evaluate(self, image: Tensor) -> Outputs:
        """Return the student's answer, with those of all networks as members."""
        members = tuple(Outputs(network(image)) for network in self.networks)
        return members[0]._replace(members=members)

    def losses(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the label term and the mutual term."""
        answers = [member.logits for member in student.members]
        labels = [F.cross_entropy(answer.float(), batch.label) for answer in answers]
        mutual = [
            self.soft_targets(answer, other.detach())
            for answer in answers
            for other in answers
            if other is not answer
        ]  # fmt: skip
        return {
            "label": self.label_weight * sum(labels[1:], start=labels[0]),
            "mutual": self.mutual_weight * sum(mutual[1:], start=mutual[0]) / (len(answers) - 1),
        }

    def check_networks(self, image_shape: tuple[int, int, int], num_classes: int, required: bool) -> None:
        """See that the student and its peers fit the data."""
        super().check_networks(image_shape, num_classes, required)
        for peer in self.peers:
            try_network(peer, "model.peers", image_shape, num_classes)
