"""Several small students instead of one large one, each trained by any method.

Shapes: B images per member, M members, C channels, H x W pixels, K classes.
"""

import inspect
import logging
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from kdlab.errors import UsageError
from kdlab.methods.base import Method
from kdlab.models.ensemble import Combination, Fusion, NetworkEnsemble, combine
from kdlab.teachers import Teacher
from kdlab.types import SEED_STRIDE, Batch, Outputs

log = logging.getLogger(__name__)
NO_TEACHER = Outputs(torch.empty(0))  # the answer to a member that has none, and does not read it


class SubStudentEnsemble(Method):
    """Train several students side by side and let them answer together: an ensemble of methods is a method.

    Each member keeps its own loss, teacher and adapters, starts from other random weights and sees the images in
    another order and under other views: it learns as it would alone. Its terms are logged as
    ``train/member<m>_<term>_loss``; the ensemble's metrics, each member's accuracy and their pairwise disagreement
    are logged in validation and test. Optimizer, schedule and seed are the ensemble's; a member has none of its own.

    Gradient clipping by norm is the exception: the Trainer clips the norm over all members together.

    A step takes `data.batch_size` images for each member. Members of equal architecture, and without tapped layers,
    run as one computation where that is faster. Members that name the same teacher checkpoint share one teacher.

    Args:
        members: two methods or more.
        combination: how the members' answers become one: their mean probabilities or logits, or a vote.
        fusion: whether members of equal architecture run as one computation: auto, always or never.
    """

    def __init__(
        self,
        members: list[Method],
        combination: Combination = "mean_probabilities",
        fusion: Fusion = "auto",
        **kwargs: Any,
    ) -> None:
        if len(members) < 2:
            raise UsageError(f"SubStudentEnsemble got {len(members)} member(s); list two or more, or run one alone")
        if any(isinstance(member, SubStudentEnsemble) for member in members):
            raise UsageError("a member is an ensemble itself; list its members in its place")
        for m, member in enumerate(members):
            if not _has_default_optimizer(member) or member.lr_scheduler_factory is not None or member.seed:
                log.warning("members[%d] has an optimizer, lr_scheduler or seed of its own; the ensemble's is used", m)
        network = NetworkEnsemble([member.student for member in members], combination, fusion)
        super().__init__(student=network, teacher=_share_teacher(members), **kwargs)
        self.methods = nn.ModuleList(members)
        self.combination: Combination = combination
        self.streams = len(members)
        self.member_names = tuple(f"member{m}" for m in range(len(members)))

    @property
    def single_methods(self) -> list[Method]:
        """The members."""
        return cast("list[Method]", list(self.methods))

    @property
    def reaches_whole_student(self) -> bool:
        """Whether those of all members do."""
        return all(member.reaches_whole_student for member in self.single_methods)

    @property
    def networks(self) -> list[nn.Module]:
        """Those of the members; while they run fused, neither is called as a whole."""
        return [network for member in self.single_methods for network in member.networks]

    def asked_networks(self) -> list[tuple[nn.Module, float]]:
        """Return those of the members' teachers: a shared one is asked once for each member."""
        return [asked for member in self.single_methods for asked in member.asked_networks()]

    def ask_student(self, batch: Batch) -> Outputs:
        """Return the outputs of each member for its part of the batch; ``logits`` ``[M * B, K]`` has them in a row."""
        methods = self.single_methods
        if any(method.taps.layers or type(method).ask_student is not Method.ask_student for method in methods):
            members = tuple(member.ask_student(part) for member, part in self._parts(batch))
        else:
            images = batch.image.view(self.streams, -1, *batch.image.shape[1:])
            members = tuple(Outputs(logits) for logits in self._network.members(images))
        return Outputs(torch.cat([member.logits for member in members]), members=members)

    @torch.no_grad()
    def ask_teacher(self, batch: Batch) -> Outputs | None:
        """Return what each member's teacher says about the member's part of the batch; a shared one is asked once."""
        if self.teacher is None:
            answers = (member.ask_teacher(part) for member, part in self._parts(batch))
            return NO_TEACHER._replace(members=tuple(answer or NO_TEACHER for answer in answers))
        outputs = self.teacher.teach(batch)
        return outputs._replace(members=tuple(_chunks(outputs, self.streams)))

    def losses(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of all members, by member."""
        assert teacher is not None
        terms = {}
        for m, (member, part) in enumerate(self._parts(batch)):
            own_teacher = None if member.teacher is None else teacher.members[m]
            for name, term in member.losses(student.members[m], own_teacher, part).items():
                terms[f"member{m}_{name}"] = term
        return terms

    def evaluate(self, image: Tensor) -> Outputs:
        """Return the ensemble's answer to ``[B, C, H, W]`` images, and the members'."""
        logits = self._network.members(image)
        return Outputs(combine(logits, self.combination), members=tuple(Outputs(answer) for answer in logits))

    def setup(self, stage: str) -> None:
        """Set up the members, then the ensemble."""
        for m, member in enumerate(self.single_methods):
            member.trainer = self.trainer
            member.seed = self.seed + m * SEED_STRIDE  # as its order of the images and its views
            member.setup(stage)
        super().setup(stage)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Let the members know where the run is."""
        for member in self.single_methods:
            member.on_train_batch_start(batch, batch_idx)
        super().on_train_batch_start(batch, batch_idx)

    def update_teachers(self) -> None:
        """Show the students after a step to the teachers, those of the members too."""
        super().update_teachers()
        for member in self.single_methods:
            member.update_teachers()

    def unsaved(self) -> Iterator[str]:
        """No teachers, and the members' students only once: as networks of the ensemble."""
        yield from super().unsaved()
        for m in range(len(self.methods)):
            yield f"methods.{m}.student."

    @property
    def _network(self) -> NetworkEnsemble:
        return cast("NetworkEnsemble", self.student)

    def _parts(self, batch: Batch) -> Iterator[tuple[Method, Batch]]:
        """Each member with its part of the batch."""
        parts = zip(*(tensor.chunk(self.streams) for tensor in batch), strict=True)
        return zip(self.single_methods, (Batch(*part) for part in parts), strict=True)


def _has_default_optimizer(member: Method) -> bool:
    """Whether the member's optimizer is the default of all methods, which the command line builds anew by its class."""
    default = inspect.signature(Method.__init__).parameters["optimizer"].default
    dummy = [nn.Parameter(torch.zeros(1))]
    built, expected = member.optimizer_factory(dummy), default(dummy)
    return type(built) is type(expected) and built.defaults == expected.defaults


def _chunks(outputs: Outputs, members: int) -> Iterator[Outputs]:
    """The outputs of each member's part of the batch, views of the whole."""
    for m, logits in enumerate(outputs.logits.chunk(members)):
        yield Outputs(logits, {name: feature.chunk(members)[m] for name, feature in outputs.features.items()})


def _share_teacher(members: list[Method]) -> Teacher | None:
    """Let all members use one teacher object, if they all name the same trained network; return it."""
    first = members[0].teacher
    if first is None or not all(member.teacher is not None and first.equals(member.teacher) for member in members):
        return None
    for member in members:
        assert member.teacher is not None
        if member.teacher.layers:
            first.tap(member.teacher.layers)
        member.teacher = first
    return first
