"""What networks make of wrong training labels: do they see through them, or repeat what they were taught?"""

from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from kdlab.data import ImageData
from kdlab.methods.checks import looking_only
from kdlab.teachers import Teacher
from kdlab.types import Batch


def noise_report(network: nn.Module, data: ImageData, device: torch.device) -> dict[str, Any]:
    """Ask `network` about the training images with a wrong label, each seen as it is.

    Args:
        network: a teacher, or a student, image ``[B, C, H, W]`` -> logits ``[B, K]``.
        data: what was trained on.
        device: of the network.

    Returns:
        ``n_noisy``; ``corrected_rate``: share of these that get the true class; ``memorised_rate``: share that get the
        wrong class of the training label. Empty where no label is noisy.
    """
    noisy = data.train_split.select(data.train_split.noisy).to(torch.device("cpu"))
    if not len(noisy):
        return {}
    answers = []
    with looking_only(network):
        for batch in noisy.batches(data.eval_batch_size):
            seen = data.plain_view(Batch(*(tensor.to(device) for tensor in batch)))
            answers.append(network(seen).logits if isinstance(network, Teacher) else network(seen.image))
    from kdlab.analysis import Denoising  # which takes a second to import, and most runs have no noise

    logits = torch.cat(answers).float().cpu().numpy()
    found = asdict(Denoising.from_logits(logits, noisy.labels.numpy(), noisy.clean_labels.numpy()))
    return {name: found[name] for name in ("n_noisy", "corrected_rate", "memorised_rate")}
