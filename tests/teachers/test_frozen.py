import pytest
import torch
from torch import nn

from kdlab.errors import IntegrityError, UsageError
from kdlab.models import DigitsConv
from kdlab.teachers import FrozenTeacher, Teacher
from kdlab.weights import digest, save_weights


@pytest.fixture
def trained(tmp_path):
    """A network whose weights lie in a file, with a card, and that file."""
    network = DigitsConv()
    save_weights(network, tmp_path / "student.safetensors", {"epoch": 3})
    return network.eval(), str(tmp_path / "student.safetensors")


def test_a_frozen_teacher_answers_with_the_logits_of_its_network(sixty_four):
    network = DigitsConv().eval()
    outputs = FrozenTeacher(network)(sixty_four)
    assert outputs.logits.equal(network(sixty_four.image))
    assert not outputs.features
    assert outputs.members == ()


def test_a_frozen_teacher_is_in_eval_mode_from_the_start_and_stays_there():
    network = DigitsConv()
    assert network.training
    teacher = FrozenTeacher(network)
    assert not any(part.training for part in teacher.modules())
    for outer in (teacher, nn.ModuleList([teacher])):
        outer.train()
        assert not any(part.training for part in teacher.modules())
    assert teacher.train() is teacher


def test_a_frozen_teacher_asks_for_no_gradients():
    teacher = FrozenTeacher(DigitsConv())
    assert not any(p.requires_grad for p in teacher.parameters())


def test_answering_moves_no_statistics(sixty_four):
    teacher = FrozenTeacher(DigitsConv())
    before = digest(teacher)
    teacher.train()(sixty_four)
    assert digest(teacher) == before


def test_a_teacher_without_a_checkpoint_is_ready_as_it_was_built(sixty_four):
    teacher = FrozenTeacher(DigitsConv())
    before = digest(teacher)
    assert teacher.ready
    teacher.load()
    assert digest(teacher) == before


def test_a_teacher_with_a_checkpoint_refuses_to_answer_before_it_is_loaded(trained, sixty_four):
    teacher = FrozenTeacher(DigitsConv(), checkpoint=trained[1])
    assert not teacher.ready
    with pytest.raises(UsageError, match=r"student\.safetensors is not loaded; call load"):
        teacher(sixty_four)


def test_loading_takes_weights_and_card_and_leaves_the_teacher_frozen(trained, sixty_four):
    network, checkpoint = trained
    torch.manual_seed(5)
    teacher = FrozenTeacher(DigitsConv(), checkpoint=checkpoint)
    teacher.load()
    assert teacher.ready
    assert teacher.card == {"epoch": 3}
    assert teacher(sixty_four).logits.equal(network(sixty_four.image))
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not any(part.training for part in teacher.network.modules())


def test_loading_twice_reads_once(trained, tmp_path):
    teacher = FrozenTeacher(DigitsConv(), checkpoint=trained[1])
    teacher.load()
    (tmp_path / "student.safetensors").unlink()
    teacher.load()


def test_a_missing_checkpoint_without_a_recipe_says_how_to_train_one(tmp_path):
    teacher = FrozenTeacher(DigitsConv(), checkpoint=str(tmp_path / "gone.safetensors"))
    with pytest.raises(IntegrityError, match=r"^teacher: .*gone\.safetensors does not exist.*; train a teacher first"):
        teacher.load()
    assert not teacher.ready


def test_a_damaged_checkpoint_with_a_recipe_names_the_recipe(tmp_path):
    (tmp_path / "student.safetensors").write_bytes(b"nothing")
    checkpoint = str(tmp_path / "student.safetensors")
    teacher = FrozenTeacher(DigitsConv(), checkpoint=checkpoint, recipe="configs/digits/teacher.yaml")
    with pytest.raises(IntegrityError, match=r"damaged.*fit --config configs/digits/teacher\.yaml") as caught:
        teacher.load()
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_architecture_is_refused(trained):
    teacher = FrozenTeacher(DigitsConv(widths=(3, 6, 7)), checkpoint=trained[1])
    with pytest.raises(IntegrityError, match=r"teacher: .*does not fit DigitsConv"):
        teacher.load()
    assert not teacher.ready


def test_a_recipe_without_a_checkpoint_is_an_error_with_the_fix():
    with pytest.raises(UsageError, match=r"recipe configs/t\.yaml but no checkpoint; set checkpoint to"):
        FrozenTeacher(DigitsConv(), recipe="configs/t.yaml")


def test_an_untrained_teacher_answers_only_when_that_is_asked_for(tmp_path, sixty_four):
    teacher = FrozenTeacher(DigitsConv(), checkpoint=str(tmp_path / "gone.safetensors"))
    teacher.use_untrained()
    teacher.load()
    assert teacher(sixty_four).logits.shape == (64, 10)


def with_statistics(network: nn.Module, images) -> nn.Module:
    network.train()(images)
    return network.eval()


def test_in_training_it_answers_alike_with_folded_batch_norms(sixty_four):
    teacher = FrozenTeacher(with_statistics(DigitsConv(), sixty_four.image))
    before, names = digest(teacher), list(teacher.state_dict())

    taught, told = teacher.teach(sixty_four).logits, teacher(sixty_four).logits

    assert not taught.equal(told)  # or nothing was folded
    torch.testing.assert_close(taught, told, rtol=0, atol=1e-5)
    assert (digest(teacher), list(teacher.state_dict())) == (before, names)


def test_tapped_and_compiled_networks_answer_themselves(sixty_four):
    network = with_statistics(DigitsConv(), sixty_four.image)
    tapped, compiled = FrozenTeacher(network), FrozenTeacher(network)
    tapped.tap([next(name for name, _ in network.named_children())])
    assert tapped.teach(sixty_four).logits.equal(network(sixty_four.image))
    network.compile(backend="eager")
    assert compiled.teach(sixty_four).logits.equal(network(sixty_four.image))


def test_what_happens_to_the_network_happens_to_its_folded_copy(sixty_four):
    teacher = FrozenTeacher(with_statistics(DigitsConv(), sixty_four.image))
    teacher.teach(sixty_four)
    assert teacher.double().teach(sixty_four._replace(image=sixty_four.image.double())).logits.dtype == torch.float64
    teacher.float().teach(sixty_four)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.zero_()
    teacher.start(DigitsConv())  # training starts again
    assert not teacher.teach(sixty_four).logits.any()


def test_a_teacher_of_ones_own_needs_only_forward():
    class Constant(Teacher):
        def forward(self, batch):
            return None

    teacher = Constant()
    assert teacher.ready
    teacher.load()
    with pytest.raises(TypeError, match="abstract"):
        Teacher()
