"""Runs that are killed again and again, at random steps and at the worst instants: not a bit is lost."""

import os
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdlab.cli import main
from kdlab.run.checkpoints import AtomicCheckpointIO
from kdlab.run.folder import RunFolder

EPOCHS, STEPS_PER_EPOCH = 3, 10  # 300 images in batches of 32
COMMON = [
    "--trainer.max_epochs", str(EPOCHS), "--trainer.log_every_n_steps", "1", "--name", "run",
    "--data.train_per_class", "30", "--data.batch_size", "32",
    "--data.augmentation", "RandomCropFlip", "--data.augmentation.padding", "1",
    "--trainer.callbacks+=ResumePoint", "--trainer.callbacks.every_n_steps", "3",
]  # fmt: skip
METHODS = {
    "independent": [],
    "logit_matching": [],
    "sub_student_ensemble": [],
    "cached_teacher": ["--model.teacher.cache_dir"],  # each run its own
}


def kills(choose: random.Random) -> list[tuple[str, int]]:
    """Deaths of one run, in the order of its steps: 13 at random steps, 10 at the worst instants.

    Write and rename count those of one process. Step 21 may be saved already when the second write ends a process.
    """
    drawn = sorted(choose.sample([step for step in range(2, 30) if step not in (10, 20, 21)], 13))
    first, second, third = ([("step", step) for step in drawn if step // STEPS_PER_EPOCH == e] for e in range(EPOCHS))
    return [
        ("step", 1),  # before there is a resume point
        ("write", 1),
        *first,
        ("step", STEPS_PER_EPOCH),  # the last batch of an epoch, before its validation
        ("validation", 0),
        ("rename", 1),
        *second,
        ("step", 2 * STEPS_PER_EPOCH),
        ("validation", 1),
        ("write", 2),
        *third,
        ("step", EPOCHS * STEPS_PER_EPOCH),
        ("test", 1),  # trained, and not yet tested
    ]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with the teacher that the configs of the digits name."""
    folder, before = tmp_path_factory.mktemp("workplace"), Path.cwd()
    os.chdir(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["kdlab"])  # this comes before the fixture of each test
        assert main(["fit", "--config", "digits/teacher", "--profile", "false"]) == 0
    yield folder
    os.chdir(before)


def command(name: str, place: Path) -> list[str]:
    more = [part for option in METHODS[name] for part in (option, str(place / "cache"))]
    return ["fit", "--config", f"digits/{name}", "--runs_dir", str(place / "runs"), *COMMON, *more]


@pytest.mark.faults
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", METHODS)
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_never_was(
    name: str,
    workplace: Path,
    tmp_path: Path,
    run_and_kill: Callable[[list[str], str, int], None],
    outcome: Callable[[RunFolder], dict[str, object]],
    tally: Callable[[str, int], None],
) -> None:
    assert main(command(name, tmp_path / "whole")) == 0
    arguments = command(name, tmp_path / "killed")
    folder = RunFolder(tmp_path / "killed" / "runs" / "digits" / "run")
    io, deaths = AtomicCheckpointIO(), kills(random.Random(name))
    for when, number in deaths:
        resume = ["--ckpt_path", "last"] if folder.last.exists() else []
        run_and_kill([*arguments, *resume], when, number)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # that the one before had to be taken
            if folder.last.exists():
                io.load_checkpoint(folder.last)
    assert folder.last.exists()
    assert not folder.result.exists()
    assert main([*arguments, "--ckpt_path", "last"]) == 0
    assert outcome(folder) == outcome(RunFolder(tmp_path / "whole" / "runs" / "digits" / "run"))
    tally(f"SIGKILL, {name}: last.ckpt whole, final student bit-identical", len(deaths))
