"""What the networks of a run answer to one split: logits of all images, features of the first.

Shapes: N images in the split, M of them with features, B in a batch, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from torch import Tensor, nn

from kdlab.analysis import Answers
from kdlab.data import ImageData
from kdlab.data.split import Split
from kdlab.errors import KDLabError, UsageError
from kdlab.models.taps import Taps, layer_names
from kdlab.profiling.isolation import noise_batch, noise_image
from kdlab.teachers import Teacher
from kdlab.types import Batch
from kdlab.verbs.loaded import LoadedRun

SplitName = Literal["test", "val", "train"]

MOST_FEATURE_IMAGES = 1000  # enough for CKA
FEATURE_BYTES = 256 * 2**20  # of all tapped layers; the analysis computes with twice as many, in float64


@dataclass(frozen=True)
class Layers:
    """Which layers of the two networks are compared, by module path."""

    student: tuple[str, ...]
    teacher: tuple[str, ...]


NO_LAYERS = Layers((), ())


@torch.inference_mode()
def collect(run: LoadedRun, split: SplitName, teacher: Teacher | None, layers: Layers, device: torch.device) -> Answers:
    """Ask student and teacher about every image of a split, seen as it is.

    Args:
        run: whose student is asked, on whose data.
        split: for ``train`` the labels trained on are returned beside the true ones.
        teacher: None where there is none.
        layers: whose features are kept, for as many images as fit into `FEATURE_BYTES`, `MOST_FEATURE_IMAGES` at most.
        device: to run on.

    Raises:
        UsageError: if the split is empty.
        IntegrityError: if the data are missing or damaged.
    """
    run.data.prepare_data()
    images = _split_of(run, split)
    student = Taps(run.method.student.to(device), layers.student)
    if teacher is not None:
        teacher.to(device)
        if layers.teacher:
            teacher.tap(layers.teacher)
    asked_student, asked_teacher = _Collected(layers.student), _Collected(layers.teacher)
    for seen in _batches(run.data, split, device):
        asked_student.add(*student(seen.image)[:2])
        if teacher is not None:
            asked_teacher.add(*teacher(seen)[:2])
    shown = min(asked_student.kept, asked_teacher.kept) if teacher is not None else 0
    return Answers(
        name=run.name,
        student_logits=torch.cat(asked_student.logits),
        labels=images.clean_labels,
        teacher_logits=None if teacher is None else torch.cat(asked_teacher.logits),
        student_features=asked_student.first(shown),
        teacher_features=asked_teacher.first(shown),
        training_labels=images.labels if split == "train" else None,
        class_names=run.data.class_names,
        index=images.index,
    )


def _split_of(run: LoadedRun, split: SplitName) -> Split:
    data = run.data
    images = {"test": lambda: data.test_split, "val": lambda: data.val_split, "train": lambda: data.train_split}[
        split
    ]()
    if not len(images):
        raise UsageError(f"the {split} split of {run.name} is empty (val_fraction {data.val_fraction:g}); name another")
    return images


def _batches(data: ImageData, split: SplitName, device: torch.device) -> Iterator[Batch]:
    """The images of a split in the order of the file, as networks read them."""
    loaders = {"test": data.test_dataloader, "val": data.val_dataloader, "train": data.plain_train_dataloader}
    for batch in cast("Iterable[Batch]", loaders[split]()):
        yield data.plain_view(Batch(*(tensor.to(device) for tensor in batch)))


@dataclass
class _Collected:
    """One network's answers, batch by batch."""

    layers: tuple[str, ...]
    logits: list[Tensor] = field(default_factory=list)
    features: dict[str, list[Tensor]] = field(default_factory=dict)
    kept: int = 0  # images with features

    def add(self, logits: Tensor, features: Mapping[str, Tensor]) -> None:
        self.logits.append(logits.float().cpu())
        own = {name: features[name] for name in self.layers}
        per_image = sum(feature[0].numel() * 4 for feature in own.values())
        room = min(MOST_FEATURE_IMAGES, FEATURE_BYTES // max(per_image, 1)) - self.kept
        if room <= 0 or not own:
            return
        for name, feature in own.items():
            self.features.setdefault(name, []).append(feature[:room].float().cpu())
        self.kept += min(room, len(logits))

    def first(self, images: int) -> dict[str, Tensor]:
        return {name: torch.cat(parts)[:images] for name, parts in self.features.items()} if images else {}


# -- which layers -----------------------------------------------------------------------------------------------


def choose_layers(run: LoadedRun, teacher: Teacher | None, asked: Sequence[str] = ()) -> Layers:
    """Return the layers to compare: those asked for, else those the method taps, else each network's stages.

    Args:
        run: the student and its images.
        teacher: None where there is none; then there is nothing to compare.
        asked: module paths, each of the student, the teacher, or both.

    Raises:
        UsageError: if neither network has a layer that was asked for.
    """
    network = None if teacher is None else teacher.innermost.network
    if network is None:
        if asked:
            raise UsageError(f"{run.name} has no teacher with layers to compare; leave --layers out")
        return NO_LAYERS
    student = run.method.student
    if asked:
        own, other = (set(layer_names(part)) for part in (student, network))
        for name in asked:
            if name not in own and name not in other:
                Taps(student, [name])  # says so, with the names that are like it
        chosen = Layers(tuple(n for n in asked if n in own), tuple(n for n in asked if n in other))
        for part, layers, role in ((student, chosen.student, "student"), (network, chosen.teacher, "teacher")):
            if not layers:
                raise UsageError(f"none of --layers is a layer of the {role}; it has {', '.join(stages(part, run))}")
        return chosen
    if teacher is not None and teacher.layers and run.method.taps.layers:
        return Layers(run.method.taps.layers, teacher.layers)
    return Layers(stages(student, run), stages(network, run))


def stages(network: nn.Module, run: LoadedRun) -> tuple[str, ...]:
    """Return the parts of a network, from the input to the output, whose features can be tapped.

    Those are the children with parameters of the outermost module that has several, as far as each runs once. The
    network answers some noise in eval mode, which changes nothing in it.
    """
    path, module = "", network
    while len(children := list(module.named_children())) == 1:
        path, module = f"{path}{children[0][0]}.", children[0][1]
    found = []
    with torch.no_grad():
        network.eval()
        images = noise_batch(noise_image(network, run.data.image_shape), 2)
        for name, child in children:
            if next(child.parameters(), None) is None:
                continue
            try:
                feature = Taps(network, [f"{path}{name}"])(images).features[f"{path}{name}"]
            except KDLabError:  # it runs twice, returns no tensor, or is overwritten
                continue
            if feature.dim() >= 2 and len(feature) == len(images):
                found.append(f"{path}{name}")
    return tuple(found)
