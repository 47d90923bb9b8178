"""What a step need not call: Lightning calls each hook of each callback in each step, also those that do nothing."""

from collections.abc import Iterable

from lightning.pytorch import Callback

STEP_HOOKS = (
    "on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward",
    "on_before_optimizer_step", "on_train_batch_end",
)  # fmt: skip


def skip_idle_hooks(callbacks: Iterable[Callback]) -> None:
    """Take the hooks of a step from kdlab's callbacks that do nothing in them: Lightning passes over what is None."""
    for callback in callbacks:
        if not type(callback).__module__.startswith("kdlab."):
            continue  # nobody knows what others do with their callbacks
        for hook in STEP_HOOKS:
            if getattr(type(callback), hook) is getattr(Callback, hook) and hook not in vars(callback):
                setattr(callback, hook, None)
