"""Where targets come from."""

from kdlab.teachers.base import Teacher
from kdlab.teachers.cached import CachedTeacher
from kdlab.teachers.ema import EMATeacher
from kdlab.teachers.ensemble import TeacherEnsemble
from kdlab.teachers.frozen import FrozenTeacher

__all__ = ["CachedTeacher", "EMATeacher", "FrozenTeacher", "Teacher", "TeacherEnsemble"]
