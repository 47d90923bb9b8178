import errno
import json
import logging
import multiprocessing
import os
import random
import threading
import time
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from kdlab.data import Augmentation, Digits, Mixup, RandomCropFlip
from kdlab.errors import IntegrityError, UsageError
from kdlab.methods import HintTransfer, LogitMatching, SubStudentEnsemble
from kdlab.models import DigitsConv
from kdlab.teachers import CachedTeacher, EMATeacher, FrozenTeacher, TeacherEnsemble
from kdlab.teachers.row_file import RowFile
from kdlab.teachers.views import views_of
from kdlab.types import Batch
from kdlab.weights import digest, save_weights

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about workers and log intervals
CPU = torch.device("cpu")


class Asked(FrozenTeacher):
    """A teacher that counts the training images it is asked about."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.images = 0

    def teach(self, batch):
        self.images += len(batch.index)
        return super().teach(batch)


def network(seed=0):
    """With batch norms that have seen something."""
    torch.manual_seed(seed)
    made = DigitsConv().eval()
    for part in made.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2.0)
    return made


def small(**arguments):
    """180 digits in batches of 20, nine views of each."""
    options = {"train_per_class": 18, "batch_size": 20, "val_fraction": 0.1, "augmentation": RandomCropFlip(1, False)}
    return Digits(**(options | arguments))


def started(tmp_path, data=None, inner=None, precision="32-true", **arguments):
    """A cached teacher at the start of a run."""
    teacher = CachedTeacher(inner or Asked(network()), cache_dir=str(tmp_path), **arguments)
    teacher.remember(data or small(), precision, CPU)
    for part in teacher.modules():
        if isinstance(part, Asked):
            part.images = 0  # what was tried before
    return teacher


def asked_in(module):
    """The first teacher in it that counts."""
    return next(part for part in module.modules() if isinstance(part, Asked))


def epochs(data, number):
    """The batches of training, as the networks see them."""
    loader = data.train_dataloader()
    for epoch in range(number):
        loader.set_epoch(epoch)
        for batch in loader:
            yield data.training_view(batch)


def folders(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir())


# -- the answers


def test_these_tests_ask_a_folded_copy(tmp_path):
    data = small()
    teacher = started(tmp_path, data)
    teacher.teach(next(epochs(data, 1)))
    folded = teacher.teacher._folded.network
    assert folded is not teacher.teacher.network
    assert not [part for part in folded.modules() if isinstance(part, nn.BatchNorm2d)]


@pytest.mark.parametrize("place", ["auto", "device", "host", "disk"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2.0**-11), ("float32", 2e-6)])
def test_remembered_answers_are_those_of_the_teacher_over_whole_epochs(tmp_path, dtype, tolerance, place):
    data = small()
    for run in range(2):  # the first asks, the second remembers
        teacher = started(tmp_path, data, dtype=dtype, place=place)
        for batch in epochs(data, 3):
            answer = teacher.teach(batch)
            fresh = teacher(batch).logits
            assert answer.logits.dtype == torch.float32
            assert (answer.logits - fresh).abs().max() <= tolerance * fresh.abs().max()
            assert answer.features == {}
        assert asked_in(teacher).images == (0 if run else distinct(data, 3))


def distinct(data, number):
    """How many different views are seen."""
    return len(rows_seen(data, number))


def rows_seen(data, number):
    """The numbers of the rows, of nine views, that so many epochs ask for."""
    return {row for batch in epochs(data, number) for row in (batch.index * 9 + batch.view).tolist()}


def test_the_view_that_is_asked_for_is_the_one_that_is_answered(tmp_path):
    data = small()
    teacher, index = started(tmp_path, data, dtype="float32"), data.train_split.index[:1]
    views = []
    for view in range(9):
        image = RandomCropFlip(1, False)(data.train_split.images[:1], torch.tensor([view]))
        batch = data.plain_view(Batch(image, data.train_split.labels[:1], index, torch.tensor([view])))
        answers = [teacher.teach(batch).logits for _ in range(2)]
        torch.testing.assert_close(answers[1], teacher(batch).logits)
        views.append(answers[1])
    assert len(torch.cat(views).unique(dim=0)) > 1


def test_only_what_is_missing_is_asked_and_a_view_that_stands_twice_in_a_batch_once(tmp_path):
    data = small(augmentation=None)
    teacher, batch = started(tmp_path, data), next(epochs(data, 1))
    part = Batch(*(tensor[:5] for tensor in batch))
    teacher.teach(part)
    assert asked_in(teacher).images == 5
    twice = Batch(*(torch.cat([tensor, tensor.flip(0)]) for tensor in batch))
    answer = teacher.teach(twice).logits
    assert asked_in(teacher).images == 5 + 15
    assert answer[:20].equal(answer[20:].flip(0))
    torch.testing.assert_close(answer[:20], teacher(batch).logits, rtol=2e-3, atol=2e-3)


def test_another_question_than_that_of_training_goes_to_the_teacher_itself(tmp_path):
    data = small()
    teacher, test = started(tmp_path, data), next(iter(data.test_dataloader()))
    test = data.plain_view(test)
    fresh = teacher.teacher(test).logits
    assert teacher(test).logits.equal(fresh)  # indices of the test split mean other images
    assert not teacher.file.known().any()
    for batch in epochs(data, 9):
        teacher.teach(batch)
    assert teacher(test).logits.equal(fresh)


def test_before_training_starts_nothing_is_remembered(tmp_path, sixty_four):
    teacher = CachedTeacher(Asked(network()), cache_dir=str(tmp_path))
    torch.testing.assert_close(teacher.teach(sixty_four).logits, teacher.teacher(sixty_four).logits)
    assert folders(tmp_path) == []


def test_what_is_damaged_in_the_file_is_asked_again_and_never_used(tmp_path):
    data = small()
    teacher = started(tmp_path, data)
    for batch in epochs(data, 20):
        teacher.teach(batch)
    count, size = int(teacher.file.known().sum()), teacher.file.size_bytes // teacher.file.rows
    written, draw = teacher.file.known().nonzero().squeeze(1).tolist(), random.Random(3)
    damaged = draw.sample(written, 60)
    with teacher.file.path.open("r+b", buffering=0) as file:
        for row in damaged:
            at = row * size + draw.randrange(size)
            byte = os.pread(file.fileno(), 1, at)[0]
            os.pwrite(file.fileno(), bytes([byte ^ 1 << draw.randrange(8)]), at)
    again = started(tmp_path, data)
    for batch in epochs(data, 20):
        torch.testing.assert_close(again.teach(batch).logits, again(batch).logits, rtol=2e-3, atol=2e-3)
    assert asked_in(again).images == 60
    assert int(again.file.known().sum()) == count


def test_two_runs_at_once_share_what_they_learn(tmp_path):
    data = small()
    first, second = started(tmp_path, data), started(tmp_path, data)
    for batch in epochs(data, 3):
        assert first.teach(batch).logits.equal(second.teach(batch).logits)
    assert asked_in(first).images == distinct(data, 3)
    assert asked_in(second).images == 0


class Slow(Asked):
    """A teacher that takes its time."""

    def teach(self, batch):
        time.sleep(0.01)
        return super().teach(batch)


def train_in_step(folder, together, counts):
    torch.set_num_threads(1)
    data = small()
    teacher = started(folder, data, inner=Slow(network()))
    for batch in epochs(data, 2):
        together.wait(60)
        teacher.teach(batch)
    counts.put(asked_in(teacher).images)


def test_two_runs_in_step_ask_once(tmp_path):
    context = multiprocessing.get_context("fork")
    together, counts = context.Barrier(2), context.Queue()
    runs = [context.Process(target=train_in_step, args=(tmp_path, together, counts), daemon=True) for _ in range(2)]
    for run in runs:
        run.start()
    assert counts.get(timeout=60) + counts.get(timeout=60) == distinct(small(), 2)
    for run in runs:
        run.join(60)


def test_a_batch_is_claimed_by_its_first_row_whatever_is_known_of_it(tmp_path, monkeypatch):
    data = small()
    batch = next(iter(epochs(data, 1)))
    started(tmp_path, data).teach(Batch(*(part[:3] for part in batch)))  # what another run is just writing
    claimed, claim = [], RowFile.claim
    monkeypatch.setattr(RowFile, "claim", lambda file, row: claimed.append(row) or claim(file, row))
    started(tmp_path, data).teach(batch)
    assert claimed == [int(batch.index[0] * 9 + batch.view[0])]


def test_a_complete_cache_never_asks_and_knows_it(tmp_path):
    data = small(augmentation=None)
    teacher = started(tmp_path, data)
    for batch in epochs(data, 1):
        assert teacher._table.unknown > 0
        teacher.teach(batch)
    assert teacher._table.unknown == 0  # though the held-out images were never asked for
    assert not teacher.file.known().all()


# -- features and ensembles


def test_features_of_tapped_layers_are_remembered_too(tmp_path):
    data = small()
    for _ in range(2):
        inner = Asked(network())
        teacher = CachedTeacher(inner, cache_dir=str(tmp_path), dtype="float32")
        teacher.tap(["layer2"])
        teacher.tap(["layer3"])
        assert teacher.layers == ("layer2", "layer3")
        teacher.remember(data, "32-true", CPU)
        for batch in epochs(data, 1):
            answer, fresh = teacher.teach(batch), teacher(batch)
            assert list(answer.features) == ["layer2", "layer3"]
            for name, feature in fresh.features.items():
                assert answer.features[name].shape == feature.shape
                torch.testing.assert_close(answer.features[name], feature)
            torch.testing.assert_close(answer.logits, fresh.logits)


def test_an_ensemble_is_remembered_as_one_answer(tmp_path):
    data = small()
    inner = TeacherEnsemble([Asked(network(1)), Asked(network(2))], temperature=3.0)
    teacher = started(tmp_path, data, inner, dtype="float32")
    for batch in epochs(data, 2):
        answer = teacher.teach(batch)
        torch.testing.assert_close(answer.logits, inner.teach(batch).logits)  # at its temperature, as in training
        assert answer.members == ()


def test_an_ensemble_of_remembered_teachers_keeps_its_members(tmp_path):
    data = small()
    members = [CachedTeacher(Asked(network(seed)), str(tmp_path), dtype="float32") for seed in (1, 2)]
    ensemble = TeacherEnsemble(members)
    for member in members:
        member.remember(data, "32-true", CPU)
    batches = list(epochs(data, 1))
    for batch in batches * 2:
        answer = ensemble.teach(batch)
        fresh = TeacherEnsemble([member.teacher for member in members]).teach(batch)
        torch.testing.assert_close(answer.logits, fresh.logits)
        torch.testing.assert_close(answer.members[1].logits, fresh.members[1].logits)
    for member in members:
        asked_in(member).images = 0
        ensemble.teach(batches[0])
        assert asked_in(member).images == 0


# -- one file per question


class Shift(Augmentation):
    """Says nothing of its step, as an augmentation of a user may."""

    num_views = 3

    def __init__(self, step):
        super().__init__()
        self.step = step

    def forward(self, image, view):
        return torch.stack([one.roll(self.step * int(v), -1) for one, v in zip(image, view, strict=True)])


def inside(**arguments):
    return TeacherEnsemble([Asked(network(1)), Asked(network(2))], **arguments)


OTHER_FILES = {
    "weights": [{"inner": lambda: Asked(network(0))}, {"inner": lambda: Asked(network(1))}],
    "mean": [{"data": {"mean": [0.0]}}, {"data": {"mean": [0.1]}}],
    "std": [{"data": {"std": [1.0]}}, {"data": {"std": [0.5]}}],
    "padding": [{"data": {"augmentation": RandomCropFlip(1, False)}}, {"data": {"augmentation": RandomCropFlip(2)}}],
    "flip": [{"data": {"augmentation": RandomCropFlip(1, False)}}, {"data": {"augmentation": RandomCropFlip(1)}}],
    "code of the augmentation": [{"data": {"augmentation": Shift(1)}}, {"data": {"augmentation": Shift(2)}}],
    "dtype": [{"dtype": "float16"}, {"dtype": "float32"}],
    "precision": [{"precision": "32-true"}, {"precision": "bf16-mixed"}],
    "temperature": [{"inner": lambda: inside(temperature=1.0)}, {"inner": lambda: inside(temperature=2.0)}],
    "average": [{"inner": inside}, {"inner": lambda: inside(average="logits")}],
}


@pytest.mark.parametrize("what", OTHER_FILES)
def test_what_changes_the_answers_is_another_file(tmp_path, what):
    for options in OTHER_FILES[what]:
        made = {key: value for key, value in options.items() if key not in ("data", "inner")}
        inner = options.get("inner", lambda: Asked(network()))()
        started(tmp_path, small(**options.get("data", {})), inner, **made)
    assert len(folders(tmp_path)) == 2


def test_another_layer_is_another_file(tmp_path):
    for layers in ((), ("layer2",), ("layer3",)):
        teacher = CachedTeacher(Asked(network()), str(tmp_path))
        teacher.tap(layers)
        teacher.remember(small(), "32-true", CPU)
    assert len(folders(tmp_path)) == 3


@pytest.mark.parametrize(
    "change",
    [{"val_fraction": 0.0}, {"label_noise": 0.5}, {"train_per_class": 10}, {"seed": 3}, {"split_seed": 3},
     {"batch_size": 32}],
    ids=str,
)  # fmt: skip
def test_what_does_not_change_them_is_the_same_file_with_the_same_rows(tmp_path, change):
    first, data = started(tmp_path, small(), dtype="float32"), small(**change)
    for batch in epochs(small(), 9):
        first.teach(batch)
    teacher, remembered, asked = started(tmp_path, data, dtype="float32"), 0, 0
    for batch in epochs(data, 2):
        asked_in(teacher).images = 0
        answer = teacher.teach(batch).logits
        asked += asked_in(teacher).images
        remembered += len(batch.index) - asked_in(teacher).images
        torch.testing.assert_close(answer, teacher(batch).logits)
    assert len(folders(tmp_path)) == 1
    assert remembered > 0


def test_the_folder_says_what_it_is(tmp_path):
    data = small()
    started(tmp_path, data)
    (folder,) = folders(tmp_path)
    assert folder.startswith("DigitsConv-Digits-9views-float16-")
    card = json.loads((tmp_path / folder / "card.json").read_text())
    assert card["data_sha256"] == data.fingerprint()
    assert card["augmentation"] == "RandomCropFlip(padding=1, flip=False)"
    assert (card["images"], card["views"], card["logits"], card["precision"]) == (1437, 9, 10, "32-true")


def test_a_teacher_whose_code_has_changed_is_noticed(tmp_path, monkeypatch):
    data = small()
    teacher = started(tmp_path, data)
    for batch in epochs(data, 2):
        teacher.teach(batch)
    started(tmp_path, data)  # as it was
    forward = DigitsConv.forward
    monkeypatch.setattr(DigitsConv, "forward", lambda self, image: forward(self, image.flip(-1)))
    with pytest.raises(IntegrityError, match=r"differ by .* from those remembered in .*; delete that folder"):
        started(tmp_path, data)


def test_it_says_where_and_how_much_is_there(tmp_path, caplog):
    data = small(augmentation=None)
    teacher = started(tmp_path, data)
    for batch in list(epochs(data, 1))[:3]:  # 60 of 180
        teacher.teach(batch)
    with caplog.at_level(logging.INFO, "kdlab"):
        started(tmp_path, data)
    assert "0.03 MiB when complete, about 33% is there" in caplog.text  # 1437 rows x (20 + 4) bytes


# -- what is refused


def refusal(error, make):
    with pytest.raises(error) as caught:
        make()
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Endless(Augmentation):
    num_views = None

    def forward(self, image, view):
        return image


def test_endlessly_many_views_are_refused_with_the_cause_and_the_fix(tmp_path):
    text = refusal(UsageError, lambda: started(tmp_path, small(mixing=Mixup())))
    assert "data.mixing Mixup(alpha=1.0) makes endlessly many inputs of one image" in text
    assert "set data.mixing: null" in text
    text = refusal(UsageError, lambda: started(tmp_path, small(augmentation=Endless())))
    assert "data.augmentation Endless() makes endlessly many inputs" in text
    assert "set data.augmentation: RandomCropFlip" in text


def test_a_teacher_that_learns_is_refused():
    text = refusal(UsageError, lambda: CachedTeacher(EMATeacher()))
    assert "EMATeacher changes along with the student" in text


def test_a_dtype_that_is_none_of_the_two_is_refused():
    assert "dtype is bfloat16" in refusal(UsageError, lambda: CachedTeacher(Asked(network()), dtype="bfloat16"))


def test_too_large_a_file_is_refused_with_what_it_would_hold(tmp_path):
    inner = Asked(network())
    inner.tap(["layer2"])
    wide = inner(Batch(torch.zeros(1, 1, 8, 8), *(torch.zeros(1),) * 3)).features["layer2"].numel()
    text = refusal(UsageError, lambda: started(tmp_path, inner=inner, max_gib=1e-3))
    assert f"1,437 images x 9 views x {wide + 10:,} numbers (logits 10, layer2 {wide:,})" in text
    assert f"take {1437 * 9 * (wide + 10) * 2 / 2**20:.2f} MiB, and max_gib is 0.001" in text
    assert folders(tmp_path) == []


def test_answers_beyond_float16_are_refused_and_float32_holds_them(tmp_path):
    big = network()
    with torch.no_grad():
        for parameter in list(big.parameters())[-2:]:
            parameter.mul_(1e6)
    data, inner = small(), FrozenTeacher(big)
    batch = next(epochs(data, 1))
    text = refusal(UsageError, lambda: started(tmp_path, data, inner).teach(batch))
    assert "which torch.float16 cannot hold; set dtype: float32" in text
    torch.testing.assert_close(started(tmp_path, data, inner, dtype="float32").teach(batch).logits, inner(batch).logits)


def test_answers_that_are_no_numbers_are_passed_on_and_not_remembered(tmp_path):
    class Broken(nn.Module):
        def forward(self, image):
            logits = image.flatten(1)[:, :10].clone()
            logits[image.flatten(1).sum(1) > 18.4] = torch.nan
            return logits

    data = small()
    teacher, batch = started(tmp_path, data, FrozenTeacher(Broken())), next(epochs(data, 1))
    for _ in range(2):
        answer = teacher.teach(batch).logits
        broken = answer.isnan().any(dim=1)
        assert 0 < broken.sum() < 20
        assert broken.equal(teacher(batch).logits.isnan().any(dim=1))
    assert int(teacher.file.known().sum()) == 20 - int(broken.sum())


# -- as a part of a run


def bits(state):
    return {name: tensor.numpy().tobytes() for name, tensor in state.items()}


def method(tmp_path, **arguments):
    torch.manual_seed(7)
    teacher = CachedTeacher(Asked(network()), str(tmp_path / "cache"), **arguments)
    return LogitMatching(student=DigitsConv(), teacher=teacher)


def rows_of(folder, data):
    """Numbers and answers of the rows that are in the only file of a folder."""
    teacher = started(folder, data)
    there = teacher.file.known().nonzero().squeeze(1)
    return there, teacher.file.recall(there)[0]


def test_a_run_remembers_what_its_teacher_says_to_training_images_and_nothing_else(fit, tmp_path):
    data = small()
    system = method(tmp_path)
    fit(system, data)
    rows, values = rows_of(tmp_path / "cache", small())
    assert set(rows.tolist()) == rows_seen(data, 2)  # no blank image that networks are tried with
    fresh = system.teacher(views_of(small(), rows)).logits
    torch.testing.assert_close(values.float(), fresh, rtol=2e-3, atol=2e-3)


def test_a_second_fit_of_one_object_remembers_no_blank_image(fit, tmp_path):
    system = method(tmp_path, dtype="float32")
    for _ in range(2):
        fit(system, small(), max_epochs=1)
    assert int(system.teacher.file.known().sum()) == distinct(small(), 1)


@pytest.mark.parametrize("place", ["host", "disk"])
def test_a_run_with_remembered_answers_learns_what_it_learns_without(fit, tmp_path, place):
    torch.manual_seed(7)
    plain = LogitMatching(student=DigitsConv(), teacher=Asked(network()))
    students = []
    for _ in range(2):  # asking, remembering
        system = method(tmp_path, dtype="float32", place=place)
        plain_start = {name: value.clone() for name, value in system.student.state_dict().items()}
        fit(system, small())
        students.append(system.student.state_dict())
    assert bits(students[0]) == bits(students[1])
    plain.student.load_state_dict(plain_start)
    fit(plain, small())
    for name, value in plain.student.state_dict().items():
        torch.testing.assert_close(students[1][name], value, rtol=1e-3, atol=1e-4)


def test_on_a_complete_cache_no_step_asks_the_teacher(fit, tmp_path):
    data = small(augmentation=None)
    fit(method(tmp_path), data, max_epochs=1)
    system = method(tmp_path)
    steps, ask = [], system.ask_teacher

    def watched(batch):
        before = asked_in(system).images
        outputs = ask(batch)
        steps.append(asked_in(system).images - before)
        return outputs

    system.ask_teacher = watched
    fit(system, small(augmentation=None))
    assert len(steps) == 2 * 9 + 1
    assert sum(steps[1:]) == 0  # the first is the blank image of `prepare`


def ahead(tmp_path, place="host"):
    """A teacher that is to be asked ahead, and how to do so."""
    data, teacher = small(), started(tmp_path, place=place, ahead=True)
    return teacher, lambda: teacher.ask_ahead(data, data.train_split, 512, CPU)


@pytest.mark.parametrize("place", ["host", "disk"])
def test_what_is_asked_ahead_is_all_and_no_step_asks_any_more(fit, tmp_path, place):
    system = method(tmp_path, ahead=True, place=place)
    fit(system, small())
    used = rows_seen(small(), 2)  # of nine views of each image those of its two epochs
    assert asked_in(system).images - len(used) in (1, 2)  # and the blank images of `prepare` and `remember`
    assert rows_of(tmp_path / "cache", small())[0].tolist() == sorted(used)
    assert (system.teacher.images_answered, system.teacher.images_computed) == (2 * 180, 0)
    assert system.teacher.answers_at_once == (place == "host")
    again = method(tmp_path, ahead=True)
    fit(again, small())
    assert asked_in(again).images < 20  # those that are compared
    assert bits(again.student.state_dict()) == bits(system.student.state_dict())


def test_who_is_asked_ahead_says_the_same_as_on_the_way(tmp_path):
    teacher, ask = ahead(tmp_path)
    ask()
    on_the_way = started(tmp_path / "other")
    for batch in epochs(small(), 2):
        torch.testing.assert_close(teacher.teach(batch).logits, on_the_way.teach(batch).logits, rtol=1e-2, atol=1e-3)
    assert asked_in(teacher).images == 9 * 180


def test_of_two_runs_one_asks_ahead_and_the_other_waits(tmp_path):
    (first, ask_first), (second, ask_second) = ahead(tmp_path), ahead(tmp_path)
    waiting = threading.Thread(target=ask_second)
    with first.file.alone():
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        assert asked_in(second).images == 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(first.file, "alone", nullcontext)  # it is this one that has the lock
            ask_first()
    waiting.join(30)
    assert not waiting.is_alive()
    assert (asked_in(first).images, asked_in(second).images) == (9 * 180, 0)
    assert second.answers_at_once


def test_a_disk_that_is_full_ends_the_asking_ahead_and_not_the_run(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    teacher, ask = ahead(tmp_path)
    monkeypatch.setattr("kdlab.teachers.row_file._write", full)
    ask()
    assert asked_in(teacher).images == 512
    assert "cannot be written any more" in caplog.text
    ask()  # a file that cannot be written is not asked for
    assert asked_in(teacher).images == 512
    assert all(bool(teacher.teach(batch).logits.isfinite().all()) for batch in epochs(small(), 1))


def test_a_remembered_teacher_is_in_no_checkpoint_and_does_not_change(fit, tmp_path):
    system = method(tmp_path)
    before = digest(system.teacher)
    trainer = fit(system, small(), max_epochs=1)
    assert digest(system.teacher) == before
    assert not [name for name in system.state_dict() if "teacher" in name]
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert (tmp_path / "last.ckpt").stat().st_size < 60_000  # the student's weights and momentum


def test_a_run_on_remembered_hints_learns_the_same(fit, tmp_path):
    outcomes = []
    for _ in range(2):
        torch.manual_seed(7)
        teacher = CachedTeacher(Asked(network()), str(tmp_path / "cache"), dtype="float32")
        torch.manual_seed(8)
        student = DigitsConv()
        system = HintTransfer(teacher, student=student, student_layers=["layer2"], teacher_layers=["layer2"])
        fit(system, small(), max_epochs=1)
        outcomes.append(student.state_dict())
    assert bits(outcomes[0]) == bits(outcomes[1])


def test_members_of_an_ensemble_share_a_remembered_teacher(fit, tmp_path):
    save_weights(network(), tmp_path / "teacher.safetensors", {})

    def member(**arguments):
        inner = Asked(DigitsConv(), str(tmp_path / "teacher.safetensors"))
        teacher = CachedTeacher(inner, str(tmp_path / "cache"), **arguments)
        return LogitMatching(student=DigitsConv(), teacher=teacher)

    data = small(augmentation=None)
    for run in range(2):
        system = SubStudentEnsemble([member(), member()])
        assert isinstance(system.teacher, CachedTeacher)
        assert system.methods[0].teacher is system.methods[1].teacher is system.teacher
        asked = []
        teach = system.teacher.teach

        def watched(batch, teach=teach, asked=asked, system=system):
            before = asked_in(system).images
            outputs = teach(batch)
            asked.append(asked_in(system).images - before if system.teacher.file else 0)
            return outputs

        system.teacher.teach = watched
        fit(system, data, max_epochs=1)
        assert sum(asked) == (0 if run else 180)  # each image once, though two members saw it
    rows, _ = rows_of(tmp_path / "cache", small(augmentation=None))
    assert rows.tolist() == data.train_split.index.sort().values.tolist()
    assert SubStudentEnsemble([member(), member(dtype="float32")]).teacher is None


def test_a_stand_in_for_a_missing_teacher_is_not_remembered(tmp_path, caplog):
    inner = Asked(DigitsConv(), str(tmp_path / "missing.safetensors"))
    inner.use_untrained()
    teacher = started(tmp_path / "cache", inner=inner)
    assert teacher.untrained
    assert teacher.file is None
    assert not (tmp_path / "cache").exists()
    assert "untrained teacher are not remembered" in caplog.text


def test_it_loads_the_teacher_and_is_ready_with_it(tmp_path, sixty_four):
    save_weights(network(), tmp_path / "teacher.safetensors", {})
    teacher = CachedTeacher(Asked(DigitsConv(), str(tmp_path / "teacher.safetensors")))
    assert not teacher.ready
    teacher.load()
    assert teacher.ready
    assert teacher(sixty_four).logits.equal(network()(sixty_four.image))
    assert not teacher.untrained
    assert not any(part.training for part in teacher.train().modules())
