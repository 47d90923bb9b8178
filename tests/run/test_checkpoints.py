"""Resume points survive damage, full disks and death at any instant, and nothing in a file is run."""

import errno
import locale
import multiprocessing
import os
import pickle
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kdlab.errors import IntegrityError
from kdlab.models import DigitsConv
from kdlab.run.checkpoints import AtomicCheckpointIO, BestStudent, ResumePoint, previous
from kdlab.run.folder import RunFolder
from kdlab.weights import digest, load_weights, read_card

IO = AtomicCheckpointIO()
LOOPS = {"fit_loop": {"epoch_progress": {}, "epoch_loop.batch_progress": {}}}


def checkpoint(step):
    """What a run saves, in small: plain values, tensors, nested."""
    generator = torch.Generator().manual_seed(step)
    return {
        "pytorch-lightning_version": "2.6.6", "epoch": 0, "global_step": step, "loops": LOOPS,
        "state_dict": {"student.weight": torch.randn(300, generator=generator)},
        "callbacks": {}, "optimizer_states": [{}], "lr_schedulers": [],
    }  # fmt: skip


def same(one, other):
    return one["global_step"] == other["global_step"] and all(
        tensor.equal(other["state_dict"][name]) for name, tensor in one["state_dict"].items()
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoints" / "last.ckpt"


@pytest.fixture
def two(path):
    """Two saves: step 1 is the previous one, step 2 the last."""
    for step in (1, 2):
        IO.save_checkpoint(checkpoint(step), path)
    return path


def parts(folder):
    return [file.name for file in folder.rglob("*.part")]


# -- round trip -----------------------------------------------------------------------------------------------


def test_what_was_saved_is_loaded(path):
    IO.save_checkpoint(checkpoint(1), path)
    assert same(IO.load_checkpoint(path), checkpoint(1))
    assert not previous(path).exists()


def test_the_checkpoint_before_the_last_is_kept(two):
    IO.save_checkpoint(checkpoint(3), two)
    assert same(IO.load_checkpoint(two), checkpoint(3))
    assert same(IO.load_checkpoint(previous(two)), checkpoint(2))
    assert sorted(file.name for file in two.parent.iterdir()) == ["digests.txt", "last-previous.ckpt", "last.ckpt"]


def test_a_good_checkpoint_is_loaded_without_a_warning(two, recwarn):
    IO.load_checkpoint(two)
    assert not [warning for warning in recwarn if "kdlab" in str(warning.message)]


def test_removing_a_checkpoint_twice_is_no_error(two):
    IO.remove_checkpoint(two)
    IO.remove_checkpoint(two)
    assert not two.exists()


def test_without_hard_links_the_previous_checkpoint_is_copied(two, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    IO.save_checkpoint(checkpoint(3), two)
    assert same(IO.load_checkpoint(previous(two)), checkpoint(2))
    assert same(IO.load_checkpoint(two), checkpoint(3))


def test_every_checkpoint_of_a_folder_stays_readable(path):
    """For example of a ModelCheckpoint with save_top_k: -1, or a best one of long ago beside the last."""
    for step in range(20):
        IO.save_checkpoint(checkpoint(step), path.with_name(f"epoch-{step}.ckpt"))
    for step in range(20):
        assert same(IO.load_checkpoint(path.with_name(f"epoch-{step}.ckpt")), checkpoint(step))


def test_digests_do_not_depend_on_the_locale(tmp_path):
    path, before = tmp_path / "größe.ckpt", locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C")
    try:
        for step in (1, 2):
            AtomicCheckpointIO().save_checkpoint(checkpoint(step), path)
        assert same(AtomicCheckpointIO().load_checkpoint(path), checkpoint(2))
    finally:
        locale.setlocale(locale.LC_CTYPE, before)


def test_a_folder_without_digests_can_be_read(two):
    """A checkpoint that was copied elsewhere alone."""
    (two.parent / "digests.txt").unlink()
    assert same(IO.load_checkpoint(two), checkpoint(2))


# -- damage ---------------------------------------------------------------------------------------------------


def expect_fallback(path):
    with pytest.warns(UserWarning, match="Continuing from the one before it") as caught:
        loaded = IO.load_checkpoint(path)
    assert same(loaded, checkpoint(1))
    text = str(caught[0].message)
    assert f"{path} " in text
    assert str(previous(path)) in text
    assert "\n" not in text


def test_a_flipped_bit_anywhere_is_found_and_the_previous_checkpoint_is_taken(two, tally):
    content, choose = two.read_bytes(), random.Random(0)
    for position in choose.sample(range(len(content)), 100):
        damaged = bytearray(content)
        damaged[position] ^= 1 << choose.randrange(8)
        two.write_bytes(damaged)
        expect_fallback(two)
    tally("checkpoint with a flipped bit: found, the one before is taken", 100)


def test_a_truncated_checkpoint_is_found_wherever_it_was_cut(two, tally):
    content = two.read_bytes()
    for length in [0, 1, len(content) - 1, *range(0, len(content), len(content) // 64)]:
        two.write_bytes(content[:length])
        expect_fallback(two)
    tally("checkpoint cut off: found, the one before is taken", 64)


def test_a_checkpoint_that_is_gone_is_replaced_by_the_previous_one(two):
    two.unlink()
    expect_fallback(two)


def test_damage_is_found_without_digests_too_where_it_cannot_be_read(two):
    (two.parent / "digests.txt").unlink()
    content = two.read_bytes()
    for length in range(0, len(content), len(content) // 64):
        two.write_bytes(content[:length])
        expect_fallback(two)


def expect_error(path, match):
    with pytest.raises(IntegrityError, match=match) as caught:
        IO.load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


def test_damage_without_a_previous_checkpoint_is_an_error_with_the_path(path):
    IO.save_checkpoint(checkpoint(1), path)
    path.write_bytes(path.read_bytes()[:-3])
    expect_error(path, r"last\.ckpt is damaged: its SHA-256")


def test_two_damaged_checkpoints_are_an_error(two):
    for damaged in (two, previous(two)):
        damaged.unlink()  # two names may be one file
        damaged.write_bytes(b"nothing")
    expect_error(two, "is damaged")


def test_a_missing_checkpoint_and_a_folder_are_errors(path):
    path.parent.mkdir()
    expect_error(path, "cannot be read.*No such file")
    expect_error(path.parent, "cannot be read.*directory")


def test_a_file_of_another_kind_is_an_error(path):
    path.parent.mkdir()
    for content in (b"", b"model: {}\n", bytes(500)):
        path.write_bytes(content)
        expect_error(path, "last.ckpt (is damaged or no checkpoint|holds more than)")


class Gadget:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("forced", [False, True], ids=["", "torch_told_to_run_code"])
@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_not_run(path, tmp_path, monkeypatch, forced, zipped):
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path.parent.mkdir()
    evil = {**checkpoint(1), "callbacks": Gadget(f"touch {tmp_path / 'canary'}")}
    torch.save(evil, path) if zipped else path.write_bytes(pickle.dumps(evil["callbacks"], protocol=2))
    for weights_only in (True, False, None):  # whatever Lightning or a config asks for
        with pytest.raises(IntegrityError, match="was not opened"):
            IO.load_checkpoint(path, weights_only=weights_only)
    assert not (tmp_path / "canary").exists()


# -- a full disk ----------------------------------------------------------------------------------------------


def fail_with_full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_the_old_checkpoints_whole_and_is_said_in_one_line(two, monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", fail_with_full_disk)
    with pytest.raises(IntegrityError, match=r"last\.ckpt cannot be written \(No space left on device\)") as caught:
        IO.save_checkpoint(checkpoint(3), two)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert same(IO.load_checkpoint(two), checkpoint(2))
    assert same(IO.load_checkpoint(previous(two)), checkpoint(1))
    assert not parts(two.parent)


@pytest.mark.parametrize("call", range(1, 6))
def test_a_disk_that_is_full_at_any_flush_leaves_the_old_checkpoint_readable(two, monkeypatch, call):
    calls, fsync = [], os.fsync

    def flush(handle):
        calls.append(handle)
        return fail_with_full_disk() if len(calls) == call else fsync(handle)

    monkeypatch.setattr(os, "fsync", flush)
    try:
        IO.save_checkpoint(checkpoint(3), two)
    except IntegrityError:
        assert IO.load_checkpoint(two)["global_step"] in (2, 3)
    else:
        assert same(IO.load_checkpoint(two), checkpoint(3))
    assert same(IO.load_checkpoint(previous(two)), checkpoint(IO.load_checkpoint(previous(two))["global_step"]))
    assert not parts(two.parent)


# -- death ----------------------------------------------------------------------------------------------------


def die_at(call, path):
    """Save step 3 and die, as with kill -9, just before or in the midst of the given file system call."""
    count = 0

    def mortal(function, half=None):
        def wrapped(*arguments, **keywords):
            nonlocal count
            count += 1
            if count == call:
                if half:
                    half(*arguments)
                os._exit(9)
            return function(*arguments, **keywords)

        return wrapped

    write_bytes, write_text = Path.write_bytes, Path.write_text
    Path.write_bytes = mortal(write_bytes, lambda file, data: write_bytes(file, bytes(data)[: len(data) // 2]))
    Path.write_text = mortal(write_text, lambda file, text: write_text(file, text[: len(text) // 2]))
    Path.replace, Path.unlink = mortal(Path.replace), mortal(Path.unlink)
    os.fsync, os.link = mortal(os.fsync), mortal(os.link)
    IO.save_checkpoint(checkpoint(3), path)
    os._exit(0)


def run_in_child(function, *arguments):
    """Exit code of a forked child that runs the function; the parent has imported torch, so this takes no time."""
    child = os.fork()
    if child == 0:
        try:
            function(*arguments)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_death_at_any_file_system_call_of_a_save_loses_nothing(two, tmp_path, tally):
    codes = []
    while not codes or codes[-1] == 9:
        folder = tmp_path / str(len(codes))
        shutil.copytree(two.parent, folder)
        codes.append(run_in_child(die_at, len(codes) + 1, folder / "last.ckpt"))
        loaded = IO.load_checkpoint(folder / "last.ckpt")  # a warning would mean that the last one is damaged
        assert same(loaded, checkpoint(loaded["global_step"]))
        assert loaded["global_step"] in (2, 3)
        before = IO.load_checkpoint(previous(folder / "last.ckpt"))
        assert same(before, checkpoint(before["global_step"]))
        IO.save_checkpoint(checkpoint(4), folder / "last.ckpt")
        assert same(IO.load_checkpoint(folder / "last.ckpt"), checkpoint(4))
        assert same(IO.load_checkpoint(previous(folder / "last.ckpt")), loaded)
    assert codes[-1] == 0
    assert len(codes) > 10  # it did die at ten calls and more
    tally("death at each file-system call of a save: both checkpoints whole", len(codes) - 1)


def test_a_new_start_clears_away_what_killed_saves_left(tmp_path):
    folder = RunFolder(tmp_path / "run")
    IO.save_checkpoint(checkpoint(1), folder.last)
    assert run_in_child(die_at, 2, folder.last) == 9
    assert parts(folder.path)
    folder.claim()
    IO.save_checkpoint(checkpoint(2), folder.last)
    folder.release()
    assert not parts(folder.path)


def die_at_the_rename(step, path):
    """Save and die, as with kill -9, in the last instant before the checkpoint gets its name."""
    replace = Path.replace

    def mortal(part, target):
        return os._exit(9) if Path(target) == path else replace(part, target)

    Path.replace = mortal
    IO.save_checkpoint(checkpoint(step), path)


@pytest.mark.parametrize("steps", [[3] * 12, range(3, 15)], ids=["the_same_save", "other_saves"])
def test_any_number_of_deaths_in_a_row_loses_nothing(two, steps, tally):
    for step in steps:
        assert run_in_child(die_at_the_rename, step, two) == 9
    assert same(IO.load_checkpoint(two), checkpoint(2))
    before = IO.load_checkpoint(previous(two))
    assert same(before, checkpoint(before["global_step"]))
    tally("deaths in a row before the rename: both checkpoints whole", len(steps))


def test_a_save_after_one_that_failed_in_its_last_instant_leaves_nothing_behind(two, monkeypatch):
    replace = Path.replace
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda part, to: fail_with_full_disk() if to == two else replace(part, to))
        with pytest.raises(IntegrityError):
            IO.save_checkpoint(checkpoint(3), two)
    assert two.samefile(previous(two))  # two names of one file, which a rename leaves both there
    IO.save_checkpoint(checkpoint(3), two)
    assert not parts(two.parent)
    assert same(IO.load_checkpoint(two), checkpoint(3))
    assert same(IO.load_checkpoint(previous(two)), checkpoint(2))


def save_forever(path, first_step, saved):
    step = first_step
    while True:
        IO.save_checkpoint(checkpoint(step), path)
        saved.send(step)
        step += 1


def test_kill_9_at_random_moments_never_loses_a_readable_checkpoint(two, tally):
    fork, choose, last = multiprocessing.get_context("fork"), random.Random(0), 2
    for _ in range(20):
        told, saved = fork.Pipe(duplex=False)
        process = fork.Process(target=save_forever, args=(two, last + 1, saved))
        process.start()
        for _ in range(choose.randrange(1, 4)):
            last = told.recv()
        process.join(timeout=0.02 * choose.random())  # a save takes some milliseconds
        process.kill()
        process.join()
        loaded = IO.load_checkpoint(two)
        assert same(loaded, checkpoint(loaded["global_step"]))
        assert loaded["global_step"] >= last, "a save that had returned is gone"
        before = IO.load_checkpoint(previous(two))
        assert same(before, checkpoint(before["global_step"]))
        last = loaded["global_step"]
    tally("SIGKILL at a random moment of saves: both checkpoints whole", 20)


# -- who saves when -------------------------------------------------------------------------------------------


class FakeTrainer:
    """Counts what it is asked to save."""

    def __init__(self, batches=10, accumulate=1):
        self.num_training_batches, self.accumulate_grad_batches = batches, accumulate
        self.global_step, self.saved = 0, []

    def save_checkpoint(self, path):
        self.saved.append((self.global_step, path))

    def epoch(self, callback):
        for batch_idx in range(self.num_training_batches):
            if (batch_idx + 1) % self.accumulate_grad_batches == 0 or batch_idx + 1 == self.num_training_batches:
                self.global_step += 1
            callback.on_train_batch_end(self, None, None, None, batch_idx)
        callback.on_train_epoch_end(self, None)


def resume_point(tmp_path, every_n_steps=0):
    point = ResumePoint(every_n_steps)
    point.folder = RunFolder(tmp_path)
    return point


def test_a_resume_point_is_written_at_the_end_of_each_epoch(tmp_path):
    trainer, point = FakeTrainer(), resume_point(tmp_path)
    trainer.epoch(point)
    trainer.epoch(point)
    assert trainer.saved == [(10, RunFolder(tmp_path).last), (20, RunFolder(tmp_path).last)]


def test_a_resume_point_is_written_every_few_steps_but_once_at_the_end_of_an_epoch(tmp_path):
    trainer, point = FakeTrainer(), resume_point(tmp_path, every_n_steps=5)
    trainer.epoch(point)
    assert [step for step, _ in trainer.saved] == [5, 10]


def test_a_resume_point_is_never_between_the_parts_of_an_accumulated_step(tmp_path):
    trainer, point = FakeTrainer(batches=9, accumulate=2), resume_point(tmp_path, every_n_steps=1)
    trainer.epoch(point)
    assert [step for step, _ in trainer.saved] == [1, 2, 3, 4, 5]


def test_without_a_folder_nothing_is_written():
    trainer = FakeTrainer()
    trainer.epoch(ResumePoint(every_n_steps=1))
    assert trainer.saved == []


def validated(best, module, accuracy, epoch, fn="fit"):
    trainer = SimpleNamespace(
        state=SimpleNamespace(fn=fn), callback_metrics={"val/accuracy": torch.tensor(accuracy)} if accuracy else {},
        current_epoch=epoch, is_global_zero=True,
    )  # fmt: skip
    best.on_validation_end(trainer, module)


def test_the_best_student_is_kept_and_the_first_of_equals(tmp_path):
    best, folder, module = BestStudent(), RunFolder(tmp_path), SimpleNamespace(student=DigitsConv())
    best.folder = folder
    for epoch, accuracy in enumerate([0.5, 0.75, 0.75, 0.25]):
        module.student = DigitsConv()
        if epoch == 1:
            expected = digest(module.student)
        validated(best, module, accuracy, epoch)
    assert read_card(folder.best) == {"epoch": 1, "val_accuracy": 0.75}
    load_weights(module.student, folder.best)
    assert digest(module.student) == expected
    assert best.epoch == 1


def test_the_best_student_survives_a_resume(tmp_path):
    best, again, module = BestStudent(), BestStudent(), SimpleNamespace(student=DigitsConv())
    best.folder = again.folder = RunFolder(tmp_path)
    validated(best, module, 0.75, 3)
    again.load_state_dict(best.state_dict())
    validated(again, module, 0.5, 4)
    assert (again.score, again.epoch) == (0.75, 3)
    assert read_card(RunFolder(tmp_path).best)["epoch"] == 3


def test_only_a_validation_inside_training_selects(tmp_path):
    best, module = BestStudent(), SimpleNamespace(student=DigitsConv())
    best.folder = RunFolder(tmp_path)
    validated(best, module, 0.9, 0, fn="validate")
    validated(best, module, None, 0)
    assert best.epoch == -1
    assert not RunFolder(tmp_path).best.exists()


def test_a_student_that_answers_nan_is_not_the_best(tmp_path):
    best, module = BestStudent(), SimpleNamespace(student=DigitsConv())
    best.folder = RunFolder(tmp_path)
    metrics = {"val/accuracy": torch.tensor(0.9), "val/nll": torch.tensor(float("nan"))}
    trainer = SimpleNamespace(
        state=SimpleNamespace(fn="fit"), callback_metrics=metrics, current_epoch=0, is_global_zero=True
    )
    best.on_validation_end(trainer, module)
    assert best.epoch == -1
    assert not best.folder.best.exists()
