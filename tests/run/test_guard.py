"""A logger that fails is said once and left out."""

import pytest
from lightning.pytorch.loggers import Logger

from kdlab.methods import LogitMatching
from kdlab.models import DigitsConv
from kdlab.run.guard import guard
from kdlab.run.teacher_check import TeacherCheck
from kdlab.run.tracker import Tracker
from kdlab.teachers import FrozenTeacher


class Full(Logger):
    """A logger whose disk is full from the n-th call on."""

    name, version = "full", 0

    def __init__(self, after=0):
        super().__init__()
        self.after, self.calls = after, 0

    def log_metrics(self, metrics, step=None):
        self.calls += 1
        if self.calls > self.after:
            raise OSError("no space left on device")

    def log_hyperparams(self, *_, **__):
        pass


@pytest.mark.parametrize("after", [0, 1, 5])
def test_a_logger_that_fails_does_not_stop_the_training(fit, caplog, after):
    logger = Full(after)
    method = LogitMatching(student=DigitsConv(), teacher=FrozenTeacher(DigitsConv()))
    trainer = fit(method, logger=guard(logger), log_every_n_steps=1, callbacks=[TeacherCheck()])
    assert trainer.global_step == 18
    assert caplog.text.count("Full cannot log (no space left on device); training goes on without it") == 1
    assert logger.calls == after + 1  # it is not asked again


def test_a_logger_that_failed_is_closed_all_the_same_and_says_no_more(caplog):
    class Open(Full, Tracker):
        closed = finished = False

        def begin(self, folder, step):
            raise ValueError("four\n lines about https://user:secret@host\n")

        def finalize(self, status):
            self.finished = True

        def close(self):
            self.closed = True
            raise OSError("no space left on device")

    logger = guard(Open())
    logger.begin(None, 0)
    logger.conclude(None, None, None, {})
    logger.log_metrics({})
    logger.finalize("success")
    logger.close()
    assert (logger.calls, logger.finished, logger.closed) == (0, True, True)
    (message,) = [record.message for record in caplog.records]
    assert message == "Open cannot log (four lines about https://host); training goes on without it"


def test_a_logger_that_works_is_left_alone(fit):
    logger = Full(after=10**6)
    fit(LogitMatching(student=DigitsConv(), teacher=FrozenTeacher(DigitsConv())), logger=guard(logger))
    assert logger.calls > 2
