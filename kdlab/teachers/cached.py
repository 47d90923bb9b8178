"""A teacher whose answers are remembered: it says everything once, for all runs.

Shapes: B images, V views per image, K classes.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from math import prod
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kdlab.errors import IntegrityError, UsageError
from kdlab.teachers.base import Images, Teacher, TrainingImages
from kdlab.teachers.filling import ask_about
from kdlab.teachers.resident_table import Place, ResidentTable, table_at
from kdlab.teachers.row_file import RowFile, gib
from kdlab.teachers.views import asked_rows, countable_views, views_digest, views_of
from kdlab.types import Batch, Outputs
from kdlab.weights import digest

log = logging.getLogger(__name__)

FORMAT = 1  # of rows and card; another one is another file
_DTYPES = {"float16": torch.float16, "float32": torch.float32}
_SEARCHED_ROWS = 4096  # for some to compare with the teacher
_COMPARED_ROWS = 8
_ROUNDING = {False: 0.01, True: 0.1}  # far beyond that of float32 (TF32 too) and of 16 bits; relative to the largest


class CachedTeacher(Teacher):
    """A frozen teacher that is asked only once about each view of each training image; a file remembers the rest.

    The answer is a function of image and view, so a remembered one is what the teacher would say now, rounded to
    `dtype`. The file is one per teacher (its weights), data set, augmentation, normalisation, precision and `dtype`, in
    a folder of `cache_dir` that its ``card.json`` describes. Runs share it, also while they run: students, losses,
    temperatures and seeds do not matter to it. Training images only are remembered; all other questions go to the
    teacher itself, and so does everything before training starts.

    An ensemble of teachers is remembered as one answer, without its members; to keep them, make an ensemble of
    cached teachers.

    Args:
        teacher: the one to remember; its weights do not change.
        cache_dir: folder of all remembered teachers.
        dtype: of the remembered numbers. float16 takes half the room and rounds to 3 digits.
        place: where the answers lie during training: in the memory of the device, of the host, or in the file. auto
            takes the first that has room.
        max_gib: the largest file that is made.
        ahead: ask about all that the run will need before it starts, as `kdlab cache` does. Of several runs one asks
            and the others wait. A GPU gains by it: a step that looks for missing answers waits for the host.

    Attributes:
        images_answered: in the training, also by processes that were stopped; under DDP by this rank.
        images_computed: how many of them the teacher itself was asked about.

    Raises:
        UsageError: if the teacher learns, or there is no such dtype.
    """

    def __init__(
        self,
        teacher: Teacher,
        cache_dir: str = "cache",
        dtype: Literal["float16", "float32"] = "float16",
        place: Place = "auto",
        max_gib: float = 8.0,
        ahead: bool = False,
    ) -> None:
        super().__init__()
        if teacher.learns:
            raise UsageError(
                f"{type(teacher).__name__} changes along with the student, so what it said cannot be remembered; "
                "use it without CachedTeacher"
            )
        if dtype not in _DTYPES:
            raise UsageError(f"dtype is {dtype}, but answers are remembered as float16 or float32")
        self.teacher = teacher
        self.cache_dir = cache_dir
        self.dtype = _DTYPES[dtype]
        self.place: Place = place
        self.max_gib = max_gib
        self.ahead = ahead
        self.file: RowFile | None = None  # where answers are remembered, once training has started
        self._table: ResidentTable | RowFile | None = None
        self.images_answered = self.images_computed = 0
        self.eval()

    def forward(self, batch: Batch) -> Outputs:
        """Answer as the teacher itself."""
        outputs: Outputs = self.teacher(batch)
        return outputs

    @torch.no_grad()
    def teach(self, batch: Batch) -> Outputs:
        """Answer with what is remembered, and remember what is not.

        Raises:
            UsageError: if an answer is out of the range of `dtype`.
        """
        self.images_answered += len(batch.index)
        if self._table is None:
            self.images_computed += len(batch.index)
            return self.teacher.teach(batch)
        rows = batch.index * self._num_views + batch.view
        values, missing = self._table.recall(rows)
        if missing is not None and len(missing):
            assert self.file is not None
            with self.file.claim(int(rows[0])):  # of a batch: the same for a run in step, whatever it misses
                values, missing = self._table.recall(rows)  # what another run in step with this one has asked
                if missing is not None and len(missing):
                    values[missing] = self._ask(batch, rows, missing)
        return self._unpack(values.float())

    def start(self, student: nn.Module) -> None:
        """Ask the teacher itself until `remember`: what comes first are blank images, which count for nothing."""
        self.file = self._table = None
        self.teacher.start(student)

    def remember(self, images: TrainingImages, precision: str, device: torch.device) -> None:
        """Open the file, or make it.

        Raises:
            UsageError: if the images have endlessly many views, or the answers do not fit into memory or disk.
            IntegrityError: if the teacher does not say what is remembered of it.
        """
        self.images_answered = self.images_computed = 0
        if self.untrained:
            log.warning("the answers of an untrained teacher are not remembered")
            return
        self._num_views = countable_views(images)
        with torch.no_grad():
            outputs = self.teacher.teach(self._as_trained_on(images, torch.zeros(1, dtype=torch.int64)))
        self._shapes = {name: feature.shape[1:] for name, feature in outputs.features.items()}
        self._num_classes = outputs.logits.shape[1]
        card = self._card(images, precision)
        width = self._num_classes + sum(map(prod, self._shapes.values()))
        rows = images.num_train_images * self._num_views
        self._require_room(images, rows * width * self.dtype.itemsize, width)
        self.file = RowFile(Path(self.cache_dir, _name(card)), card, rows, width, self.dtype)
        self.asked = asked_rows(images)
        self._device = device
        share = self._compare(images, self.file, _ROUNDING["16" in precision])
        log.info("the teacher's answers are remembered in %s: %s when complete, about %.0f%% is there",
                 self.file.folder, gib(self.file.size_bytes), 100 * share)  # fmt: skip
        self._table = table_at(self.place, self.file, device, self.asked)

    def expect(self, rows: Tensor) -> None:
        """Hear which rows the run will ask for: once they are there, steps wait for nothing."""
        self.asked = rows
        if isinstance(self._table, ResidentTable):
            self._table.expect(rows)

    def ask_ahead(self, images: TrainingImages, split: Images, batch_size: int, device: torch.device) -> None:
        """Ask about all that is missing of what is expected; in no run's count, like what `kdlab cache` asks.

        Args:
            images: the data.
            split: their training images, on the device where they fit.
            batch_size: images at a time.
            device: that answers.
        """
        if self.file is None or not self.file.writable or not self._lacks_something():
            return
        self.to(device)
        counts = self.images_answered, self.images_computed
        with self.file.alone():
            missing = self.asked[~self.file.known()[self.asked]]
            if len(missing):
                log.info("the teacher is asked about %d views ahead of the training", len(missing))
            for _ in ask_about(self, images, split, missing, batch_size, device):
                if not self.file.writable:  # the reason was said
                    break
        self.images_answered, self.images_computed = counts
        if self._lacks_something():  # another run has asked meanwhile
            self._table = None  # before there is a second one
            self._table = table_at(self.place, self.file, device, self.asked)

    def _lacks_something(self) -> bool:
        """Whether the table in memory lacks what is expected; without one it is not known."""
        return not isinstance(self._table, ResidentTable) or self._table.unknown > 0

    # -- as the teacher inside --------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether the teacher is."""
        return self.teacher.ready

    @property
    def answers_at_once(self) -> bool:
        """Whether all that will be asked is remembered, in the memory of the device."""
        table = self._table
        return table is None or (isinstance(table, ResidentTable) and table.answers_at_once(self._device))

    @property
    def innermost(self) -> Teacher:
        """The teacher that is remembered."""
        return self.teacher.innermost

    def asked_networks(self) -> list[tuple[nn.Module, float]]:
        """Return those of the teacher, and how much of the training they had to answer themselves."""
        share = self.images_computed / self.images_answered if self.images_answered else 1.0
        return [(network, share * asked) for network, asked in self.teacher.asked_networks()]

    @property
    def layers(self) -> tuple[str, ...]:
        """The tapped layers."""
        return self.teacher.layers

    def load(self) -> None:
        """Load the teacher."""
        self.teacher.load()

    def tap(self, layers: Sequence[str]) -> None:
        """Remember the features of these layers too."""
        self.teacher.tap(layers)

    def soften(self, temperature: float) -> None:
        """Tell the teacher; another temperature of an ensemble is another file."""
        self.teacher.soften(temperature)

    def equals(self, other: Teacher) -> bool:
        """Whether both remember the same answers in the same file."""
        return (
            isinstance(other, CachedTeacher)
            and (self.cache_dir, self.dtype) == (other.cache_dir, other.dtype)
            and self.teacher.equals(other.teacher)
        )

    # -- pieces -------------------------------------------------------------------------------------------

    def _ask(self, batch: Batch, rows: Tensor, missing: Tensor) -> Tensor:
        """Ask the teacher about the missing samples, remember the answers, and return them ``[M, W]``."""
        assert self._table is not None
        wanted, where = torch.unique(rows[missing], return_inverse=True)  # two members may ask for one view
        sample = missing.new_empty(len(wanted)).scatter_(0, where, missing)
        self.images_computed += len(wanted)
        # a compiled teacher would be compiled anew for each number of missing images
        part_of_batch = len(wanted) < len(batch.index)
        with torch.compiler.set_stance("eager_on_recompile") if part_of_batch else nullcontext():
            outputs = self.teacher.teach(Batch(*(part[sample] for part in batch)))
        exact = self._pack(outputs)
        values = exact.to(self.dtype)
        whole = values.isfinite().all(dim=1)  # a NaN is not remembered; the method's loss will name it
        if not bool(whole.all()) and bool(exact.isfinite().all()):
            raise UsageError(
                f"the teacher's answers reach {float(exact.abs().max()):.3g}, which {self.dtype} cannot hold; "
                "set dtype: float32 in CachedTeacher"
            )
        self._table.keep(wanted[whole], values[whole])
        return values[where]

    def _pack(self, outputs: Outputs) -> Tensor:
        """Logits and features of each image as one row ``[B, W]``."""
        return torch.cat([outputs.logits, *(outputs.features[name].flatten(1) for name in self._shapes)], dim=1)

    def _unpack(self, values: Tensor) -> Outputs:
        logits, *parts = torch.split(values, [self._num_classes, *map(prod, self._shapes.values())], dim=1)
        features = zip(self._shapes.items(), parts, strict=True)
        return Outputs(logits, {name: part.reshape(-1, *shape) for (name, shape), part in features})

    def _card(self, images: TrainingImages, precision: str) -> dict[str, Any]:
        """All that the answers depend on, in words and digests: other words are another file."""
        return {
            "format": FORMAT,
            "teacher": type(self.teacher.answering).__name__,
            "teacher_sha256": hashlib.sha256(f"{self.teacher!r}\n{digest(self.teacher)}".encode()).hexdigest(),
            "precision": precision,
            "logits": self._num_classes,
            "features": {name: list(shape) for name, shape in self._shapes.items()},
            "dtype": str(self.dtype).removeprefix("torch."),
            "data": type(images).__name__,
            "data_sha256": images.fingerprint(),
            "images": images.num_train_images,
            "image_shape": list(images.image_shape),
            "augmentation": None if images.augmentation is None else repr(images.augmentation),
            "views": self._num_views,
            "mean": list(images.mean),
            "std": list(images.std),
            "views_sha256": views_digest(images),
            "row": "image * views + view: logits, features, a checksum",
        }

    def _require_room(self, images: TrainingImages, size_bytes: int, width: int) -> None:
        if size_bytes > self.max_gib * 2**30:
            parts = ", ".join(f"{name} {prod(shape):,}" for name, shape in self._shapes.items())
            raise UsageError(
                f"the teacher's answers to {images.num_train_images:,} images x {self._num_views} views x {width:,} "
                f"numbers (logits {self._num_classes:,}{', ' + parts if parts else ''}) take {gib(size_bytes)}, and "
                f"max_gib is {self.max_gib:g}; raise it, or use the teacher without CachedTeacher"
            )

    def _compare(self, images: TrainingImages, file: RowFile, rounding: float) -> float:
        """See that the teacher says what is remembered of it; return about which share is remembered.

        Weights and pixels are part of the file's key, but the code in between may have changed. It is asked in float32,
        whatever the precision of the remembered answers.
        """
        spread = torch.arange(_SEARCHED_ROWS) * (len(self.asked) - 1) // (_SEARCHED_ROWS - 1)
        chosen = torch.unique(self.asked[spread])
        values, missing = file.recall(chosen)
        known = torch.ones(len(chosen), dtype=torch.bool).index_fill_(0, missing, False).nonzero().squeeze(1)
        share = len(known) / len(chosen)
        known = known[:_COMPARED_ROWS]
        if not len(known):
            return share
        with torch.no_grad():
            now = self._pack(self.teacher.teach(self._as_trained_on(images, chosen[known]))).float().cpu()
        widths = [self._num_classes, *map(prod, self._shapes.values())]
        parts = torch.split(now, widths, dim=1), torch.split(values[known].float(), widths, dim=1)
        for name, fresh, remembered in zip(("logits", *self._shapes), *parts, strict=True):
            error = float((fresh - remembered).abs().max())
            if not error <= rounding * float(fresh.abs().max()):
                raise IntegrityError(
                    f"the teacher's answers ({name}) differ by {error:.3g} from those remembered in {file.folder}: the "
                    "code of the network or of the augmentation has changed since; delete that folder"
                )
        return share

    def _as_trained_on(self, images: TrainingImages, rows: Tensor) -> Batch:
        like = next(self.teacher.parameters(), torch.zeros(0))
        return Batch(*(part.to(like.device) for part in views_of(images, rows)))


def _name(card: Mapping[str, Any]) -> str:
    key = hashlib.sha256(repr(sorted(card.items())).encode()).hexdigest()
    return f"{card['teacher']}-{card['data']}-{card['views']}views-{card['dtype']}-{key[:12]}"
