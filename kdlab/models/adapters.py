"""Small trained layers between student and teacher; they are no part of the exported student.

Shapes: B images, C channels, H x W pixels, D features, N tokens.
"""

from __future__ import annotations

from torch import Tensor, nn

from kdlab.errors import UsageError


class HintRegressor(nn.Module):
    """Maps a feature of the student to the shape of the teacher's, so that the two can be subtracted.

    * Maps ``[B, C, H, W]``: convolution, batch norm, ReLU. The convolution is 1x1 where the sizes are equal, 3x3 with
      stride 2 where the student's map is exactly twice as large, a transposed 4x4 with stride 2 where it is exactly
      half as large. At any other size it is 1x1 and the map is averaged down to the teacher's size, or enlarged
      bilinearly where a side of it is smaller.
    * Vectors ``[B, D]`` and tokens ``[B, N, D]``: one linear layer; N must be equal.

    Source: Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015 (a convolutional regressor); the layers for
    maps are those of the distillation benchmarks (HobbitLong/RepDistiller, ``ConvReg``), but without the bias that
    batch norm cancels, and with pooling instead of kernels as large as the difference of the sizes.

    Args:
        student_shape: shape of the student's feature without the batch: (C, H, W), (D,) or (N, D).
        teacher_shape: shape of the teacher's feature without the batch, of as many dimensions.
        relu: end with a ReLU; false for a teacher's map with negative values, as before its ReLU.

    Raises:
        UsageError: if the shapes cannot be brought together.
    """

    def __init__(self, student_shape: tuple[int, ...], teacher_shape: tuple[int, ...], relu: bool = True) -> None:
        super().__init__()
        self.student_shape, self.teacher_shape = tuple(student_shape), tuple(teacher_shape)
        both = f"student {_text(self.student_shape)}, teacher {_text(self.teacher_shape)} without the batch"
        if len(self.student_shape) != len(self.teacher_shape) or len(self.student_shape) not in (1, 2, 3):
            raise UsageError(
                f"a hint cannot join features of these shapes: {both}; both must be maps [C, H, W], vectors [D] or "
                "tokens [N, D]; between a convolutional network and a transformer, tap pooled vectors in both"
            )
        if len(self.student_shape) == 2 and self.student_shape[0] != self.teacher_shape[0]:
            raise UsageError(
                f"a hint cannot join different numbers of tokens: {both}; tap pooled vectors in both, "
                "or choose networks with equal patches"
            )
        if len(self.student_shape) == 3:
            batch_norm = nn.BatchNorm2d(self.teacher_shape[0])
            self.layers = nn.Sequential(*_resizing(self.student_shape, self.teacher_shape), batch_norm)
            if relu:
                self.layers.append(nn.ReLU())
        else:
            self.layers = nn.Sequential(nn.Linear(self.student_shape[-1], self.teacher_shape[-1]))

    def forward(self, feature: Tensor) -> Tensor:
        """Return the student's feature in the teacher's shape.

        Raises:
            UsageError: if it has another shape than it was built for.
        """
        if tuple(feature.shape[1:]) != self.student_shape:
            raise UsageError(
                f"the hint regressor got a feature of shape {_text(tuple(feature.shape[1:]))} but is built for "
                f"{_text(self.student_shape)}; train and test with images of one size"
            )
        mapped: Tensor = self.layers(feature)
        return mapped


def _resizing(student: tuple[int, ...], teacher: tuple[int, ...]) -> list[nn.Module]:
    """Return the layers from a student's map (C, H, W) to a teacher's."""
    channels, height, width = student
    target_channels, *size = teacher
    target = (size[0], size[1])
    if (height, width) == (2 * target[0], 2 * target[1]):
        return [nn.Conv2d(channels, target_channels, 3, stride=2, padding=1, bias=False)]
    if (2 * height, 2 * width) == target:
        return [nn.ConvTranspose2d(channels, target_channels, 4, stride=2, padding=1, bias=False)]
    convolution = nn.Conv2d(channels, target_channels, 1, bias=False)
    if (height, width) == target:
        return [convolution]
    # Both orders compute the same; the convolution works on the smaller map.
    if height >= target[0] and width >= target[1]:
        return [nn.AdaptiveAvgPool2d(target), convolution]
    return [convolution, nn.Upsample(target, mode="bilinear")]


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) if shape else "a number"
