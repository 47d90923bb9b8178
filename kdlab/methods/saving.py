"""What of a method goes into a checkpoint: all that learns, the unfinished epoch, and none of the fixed teachers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from lightning.pytorch import LightningModule

from kdlab.errors import IntegrityError
from kdlab.methods.checks import check_finite
from kdlab.methods.finite import LossWatch
from kdlab.metrics import EpochMeans
from kdlab.teachers import CachedTeacher, Teacher

if TYPE_CHECKING:
    from kdlab.methods.base import Method


class TeacherlessCheckpoint(LightningModule):
    """A module whose state dict leaves out the teachers in it, however deep, unless they learn with the student.

    Attributes:
        train_means: of the losses in the unfinished epoch.
    """

    train_means: EpochMeans
    _watch: LossWatch
    _teachers_digest: list[str]

    def unsaved(self) -> Iterator[str]:
        """The prefixes of the tensors that no checkpoint holds."""
        for name, module in self.named_modules(remove_duplicate=False):
            if isinstance(module, Teacher) and not module.learns:
                yield f"{name}."

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (torch's own overloads)
        """Everything but the teachers."""
        state = super().state_dict(*args, **kwargs)
        unsaved = tuple(kwargs.get("prefix", "") + prefix for prefix in self.unsaved())
        for name in [name for name in state if name.startswith(unsaved)]:
            del state[name]
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401
        """Load everything but the teachers.

        Raises:
            IntegrityError: if tensors are missing or left over.
        """
        result = super().load_state_dict(state_dict, strict=False, assign=assign)
        unsaved = tuple(self.unsaved())
        missing = [name for name in result.missing_keys if not name.startswith(unsaved)]
        if strict and (missing or result.unexpected_keys):
            raise IntegrityError(
                f"the checkpoint is of another model: {len(missing)} tensors are missing {missing[:3]}, "
                f"{len(result.unexpected_keys)} are not known here {result.unexpected_keys[:3]}"
            )
        return result

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the means of the unfinished epoch, who taught in it, and how much of that was computed.

        Raises:
            NumericalError: if a loss in it, a weight, or a number of the optimizer is none; the checkpoint of before
                stays.
        """
        method = cast("Method", self)
        self._watch.look(method, wait=True)
        self._watch.look_at_weights(method, checkpoint.get("state_dict", {}))
        self._watch.look_at_optimizers(method, checkpoint.get("optimizer_states", ()))
        checkpoint["teachers"] = self._teachers_digest
        checkpoint["asked"] = {name: (part.images_answered, part.images_computed) for name, part in self._remembering()}
        state = checkpoint["train_means"] = self.train_means.state_dict()
        check_finite(dict(zip(state["names"], state["totals"].tolist(), strict=False)), "an unsaved step")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue the means of the unfinished epoch, and the counts of what teachers answered.

        Raises:
            IntegrityError: if the run had another teacher.
        """
        if checkpoint.get("teachers", self._teachers_digest) != self._teachers_digest:
            raise IntegrityError(
                "the run was started with another teacher: its weights have changed since. "
                "Bring them back to continue, or leave --ckpt_path out to start a new run"
            )
        for name, part in self._remembering():
            part.images_answered, part.images_computed = checkpoint.get("asked", {}).get(name, (0, 0))
        if "train_means" in checkpoint:
            self.train_means.load_state_dict(checkpoint["train_means"], is_first_process=self.global_rank == 0)

    def _remembering(self) -> list[tuple[str, CachedTeacher]]:
        return [(name, part) for name, part in self.named_modules() if isinstance(part, CachedTeacher)]
