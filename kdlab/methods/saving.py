"""What of a method goes into a checkpoint: everything that learns, and no teacher that does not."""

from collections.abc import Iterator, Mapping
from typing import Any

from lightning.pytorch import LightningModule

from kdlab.errors import IntegrityError
from kdlab.teachers import Teacher


class TeacherlessCheckpoint(LightningModule):
    """A module whose state dict leaves out the teachers in it, however deep, unless they learn with the student."""

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
