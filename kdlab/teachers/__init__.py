"""Where targets come from."""

from kdlab.teachers.base import Teacher
from kdlab.teachers.ema import EMATeacher
from kdlab.teachers.ensemble import TeacherEnsemble
from kdlab.teachers.frozen import FrozenTeacher

__all__ = ["EMATeacher", "FrozenTeacher", "Teacher", "TeacherEnsemble"]
