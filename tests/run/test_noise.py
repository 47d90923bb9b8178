"""Answers to images with a wrong training label, counted by hand."""

import pytest
import torch
from torch import nn

from kdlab.data import Digits
from kdlab.run.noise import noise_report
from kdlab.teachers import FrozenTeacher

CPU = torch.device("cpu")


class Says(nn.Module):
    """Answers the images it has seen, in order, with the classes given, whatever it sees."""

    def __init__(self, classes):
        super().__init__()
        self.classes = list(classes)
        self.modes = []

    def forward(self, image):
        self.modes.append(self.training)
        said, self.classes = self.classes[: len(image)], self.classes[len(image) :]
        return 5.0 * nn.functional.one_hot(torch.tensor(said), 10)


def data(**options):
    found = Digits(label_noise_kind="minus_one", **options)
    found.setup("fit")
    return found


def test_each_noisy_image_is_corrected_memorised_or_neither():
    noisy_data = data(label_noise=0.01, eval_batch_size=5)
    split = noisy_data.train_split
    truth = split.clean_labels[split.noisy]
    assert len(truth) == 13  # of 1,293
    answers = torch.cat([truth[:6], truth[6:10] - 1, truth[10:] + 1]) % 10
    network = Says(answers.tolist()).train()
    found = noise_report(network, noisy_data, CPU)
    assert found == {"n_noisy": 13, "corrected_rate": pytest.approx(6 / 13), "memorised_rate": pytest.approx(4 / 13)}
    assert network.modes == [False] * 3  # three batches in eval mode
    assert network.training


def test_a_teacher_is_asked_like_a_student():
    noisy_data = data(label_noise=0.01)
    truth = noisy_data.train_split.clean_labels[noisy_data.train_split.noisy]
    assert noise_report(FrozenTeacher(Says(truth.tolist())), noisy_data, CPU)["corrected_rate"] == 1.0


def test_without_noise_there_is_nothing_to_say():
    assert noise_report(Says([]), data(), CPU) == {}
