"""What a user reads after a mistake on the command line, from messages that jsonargparse really makes."""

import re

import pytest
from jsonargparse import Namespace

from kdlab.data import ImageData
from kdlab.errors import UsageError
from kdlab.methods import Method
from kdlab.parser import KDLabParser

MATCHING = ["--model", "LogitMatching", "--model.student", "kdlab.models.DigitsConv"]


@pytest.fixture(scope="module")
def parser():
    parser = KDLabParser()
    parser.add_argument("--seed", type=bool | int, default=0)
    parser.add_argument("--epochs", type=int | None, default=None)
    parser.add_subclass_arguments(Method, "model", required=False)
    parser.add_subclass_arguments(ImageData, "data", required=False)
    return parser


def mistake(parser, *args):
    with pytest.raises(UsageError) as caught:
        parser.parse_args(list(args))
    line = str(caught.value)
    assert "\n" not in line
    assert "Traceback" not in line
    return line


def test_what_is_right_is_parsed(parser):
    config = parser.parse_args(["--data", "Digits", "--data.batch_size", "7", "--epochs", "3", "--seed", "1"])
    assert isinstance(config, Namespace)
    assert (config.data.init_args.batch_size, config.epochs, config.seed) == (7, 3, 1)


def test_a_missing_argument_is_named(parser):
    assert "teacher" in mistake(parser, *MATCHING)


def test_an_unknown_argument_of_a_class_names_the_one_that_was_meant(parser):
    line = mistake(parser, *MATCHING, "--model.temprature", "2")
    assert line == "model: LogitMatching has no temprature; did you mean temperature?"


def test_an_argument_of_a_base_class_is_suggested_too(parser):
    assert "did you mean lr_scheduler" in mistake(parser, *MATCHING, "--model.lr_shceduler", "2")


@pytest.mark.parametrize(
    ("method", "fixed"),
    [("IndependentStudent", "teacher"), ("LogitStandardization", "logit_loss"), ("FitNet", "feature_loss")],
)
def test_an_argument_that_a_class_has_fixed_is_not_suggested(parser, method, fixed):
    line = mistake(parser, "--model", method, f"--model.{fixed}", "SoftTargets")
    assert line.startswith(f"model: {method} has no {fixed}")
    assert fixed not in re.findall(r"\w+", line.partition(f"has no {fixed}")[2])


def test_an_unknown_argument_in_a_nested_slot_is_named_with_its_slot(parser):
    line = mistake(parser, *MATCHING, "--model.student.widhts", "[1, 2, 3]")
    assert line == "model.student: DigitsConv has no widhts; did you mean widths?"


def test_a_value_of_the_wrong_type_is_named_with_its_key_and_the_type(parser):
    line = mistake(parser, *MATCHING, "--model.temperature", "warm")
    assert line == "model.temperature: expected float; given warm"


def test_a_wrong_element_of_a_list_is_named_with_its_key(parser):
    line = mistake(parser, *MATCHING, "--model.student.widths", "[1, a, 3]")
    assert line.startswith("model.student.widths: expected int")
    assert line.endswith("a")


def test_an_unknown_class_of_a_module_names_the_one_that_was_meant(parser):
    line = mistake(parser, "--model", "LogitMatching", "--model.student", "kdlab.models.DigitConv")
    assert line == "model.student: kdlab.models has no DigitConv; did you mean DigitsConv?"


@pytest.mark.parametrize(
    ("args", "start"),
    [
        (["--model", "LogitMatchin"], "model: there is no class LogitMatchin; did you mean LogitMatching"),
        (["--data", "Digit"], "data: there is no class Digit; did you mean Digits"),
        (
            [*MATCHING, "--model.logit_loss", "SoftTarget"],
            "model.logit_loss: there is no class SoftTarget; did you mean SoftTargets",
        ),
    ],
)
def test_an_unknown_class_is_named_with_its_slot(parser, args, start):
    assert mistake(parser, *args).startswith(start)


def test_an_abbreviated_option_is_not_taken(parser):
    line = mistake(parser, "--epoch", "3")
    assert line == "there is no option --epoch; did you mean --epochs?"


def test_a_union_names_all_its_types_and_what_was_given(parser):
    line = mistake(parser, "--seed", "x")
    assert line.startswith("seed: expected bool")
    assert "int" in line
    assert line.endswith("given x")


def test_a_wrong_number_is_named_with_its_key_and_what_was_given(parser):
    assert mistake(parser, "--epochs", "many") == "epochs: expected int; given many"


def test_an_unknown_optimizer_names_the_one_that_was_meant(parser):
    line = mistake(parser, *MATCHING, "--model.optimizer", "torch.optim.SDG")
    assert line.startswith("model.optimizer: ")
    assert "torch.optim has no SDG; did you mean" in line
    assert "SGD" in line
    assert "collections.abc" not in line


def test_a_wrong_argument_of_the_optimizer_is_named_with_its_key(parser):
    line = mistake(parser, *MATCHING, "--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "fast")
    assert line.startswith("model.optimizer.lr: expected float")
    assert "fast" in line
    assert "collections.abc" not in line
