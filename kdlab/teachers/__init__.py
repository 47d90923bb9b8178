"""Where targets come from."""

from kdlab.teachers.base import Teacher
from kdlab.teachers.frozen import FrozenTeacher

__all__ = ["FrozenTeacher", "Teacher"]
