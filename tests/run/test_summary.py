"""The result of a run: what is not defined, whose weights it is of, and that it can be read again."""

import json

import pytest
import torch
from torch import nn

from kdlab.run.summary import _under, describe_teacher, read_result, teacher_digest, write_result
from kdlab.teachers import CachedTeacher, EMATeacher, FrozenTeacher, TeacherEnsemble
from kdlab.weights import digest


def test_a_metric_that_is_not_defined_is_null():
    logged = {"test/accuracy": torch.tensor(0.5), "test/same_wrong_rate": torch.tensor(float("nan")), "val/nll": 1.0}
    found = _under("test/", logged)
    assert found == {"accuracy": 0.5, "same_wrong_rate": None}
    json.dumps(found, allow_nan=False)


def test_a_teacher_is_known_by_the_weights_of_its_network():
    network = nn.Linear(3, 2)
    teacher = FrozenTeacher(network)
    assert teacher_digest(teacher) == teacher_digest(CachedTeacher(teacher)) == digest(network)
    follower = EMATeacher()
    follower.start(network)
    assert teacher_digest(follower) == digest(network)
    several = [TeacherEnsemble([FrozenTeacher(nn.Linear(3, 2)), teacher]) for _ in range(2)]
    assert teacher_digest(several[0]) != teacher_digest(several[1])


def test_the_members_of_an_ensemble_are_described_with_their_files():
    networks = [nn.Linear(3, 2) for _ in range(3)]
    first, second, third = (FrozenTeacher(network, f"{i}.pt") for i, network in enumerate(networks))
    third.use_untrained()
    about = describe_teacher(CachedTeacher(TeacherEnsemble([first, TeacherEnsemble([CachedTeacher(second), third])])))
    assert (about["network"], about["parameters"]) == ("TeacherEnsemble", 3 * 8)
    outer, inner = about["members"]
    assert outer == {"network": "Linear", "parameters": 8, "weights_sha256": digest(networks[0]),
                     "checkpoint": "0.pt", "untrained": False}  # fmt: skip
    assert [member["checkpoint"] for member in inner["members"]] == ["1.pt", None]


@pytest.mark.parametrize("content", [None, "torn {", "[1]"])
def test_a_result_that_is_missing_or_damaged_is_none(content, tmp_path):
    path = tmp_path / "result.json"
    if content is not None:
        path.write_text(content)
    assert read_result(path) is None
    write_result({"a": 1}, path)
    assert read_result(path) == {"a": 1}
