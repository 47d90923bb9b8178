"""What a user reads after a mistake on the command line, from messages that jsonargparse really makes."""

import re

import pytest
from jsonargparse import Namespace

from kdlab.data import ImageData
from kdlab.errors import UsageError
from kdlab.methods import Method
from kdlab.parser import CHECKOUT_CONFIGS, KDLabParser, brief, find_config

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


# -- brief on stored messages of jsonargparse 4.53 ------------------------------------------------------------


def test_brief_finds_the_mistake_three_classes_deep():
    message = """Parser key "model":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'kdlab.methods.base.Method'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'kdlab.methods.LogitMatching':
        Parser key "teacher":
          Problem with given class_path 'kdlab.teachers.FrozenTeacher':
            Parser key "network":
              Problem with given class_path 'kdlab.models.DigitsConv':
                Parser key "num_classes":
                  Expected a <class 'int'>. Got value: ten
    - Expected a <class 'NoneType'>
  Given value type: <class 'jsonargparse._util.NestedArg'>
  Given value: NestedArg(key='teacher.network.num_classes', val='ten')"""
    assert brief(message) == "model.teacher.network.num_classes: expected int; given ten"


def test_brief_does_not_name_the_config_option_as_a_key():
    message = """Parser key "config":
  Problem with given class_path 'kdlab.models.DigitsConv':
    Option 'widhts' is not accepted"""
    assert brief(message) == "DigitsConv has no widhts; did you mean widths?"


def test_brief_lists_the_arguments_where_none_is_close_and_there_are_few():
    message = """Parser key "model.student":
  Problem with given class_path 'kdlab.models.DigitsConv':
    Option 'zzz' is not accepted"""
    # not `parts` of its base class, which DigitsConv fixes, nor torch.nn.Module's args and kwargs
    assert brief(message) == "model.student: DigitsConv has no zzz; there are: in_channels, num_classes, widths"


def test_brief_keeps_our_own_message_whole():
    ours = "temperature is 0, but it must be a positive number; 1 to 10 is usual"
    message = f"""Parser key "model":
  Problem with given class_path 'kdlab.losses.SoftTargets':
    {ours}"""
    assert brief(message) == f"model: {ours}"


def test_brief_says_the_same_thing_once():
    message = """Parser key "seed":
  Expected a <class 'int'>
  Expected a <class 'int'>
  Given value: x1"""
    assert brief(message) == "seed: expected int; given x1"


def test_brief_survives_a_class_that_cannot_be_imported():
    message = """Parser key "model":
  Problem with given class_path 'no.such.Thing':
    Option 'a' is not accepted"""
    assert brief(message) == "model: Thing has no a"


@pytest.mark.parametrize("message", ["unrecognized arguments: --x 3", "one\ntwo", 'Parser key "a": broken'])
def test_brief_of_a_plain_message_is_one_line_that_says_it(message):
    line = brief(message)
    assert "\n" not in line
    assert message.splitlines()[0].split(":")[-1].strip() in line


# -- configs by name ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["digits/teacher", "digits/teacher.yaml", "configs/digits/teacher", "configs/digits/teacher.yaml"]
)
def test_a_config_of_the_package_is_found_from_any_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == str(CHECKOUT_CONFIGS / "digits" / "teacher.yaml")


def test_a_file_is_taken_as_it_is_before_a_config_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "teacher.yaml").write_text("")
    assert find_config("digits/teacher.yaml") == "digits/teacher.yaml"
    assert find_config(str(tmp_path / "digits" / "teacher.yaml")) == str(tmp_path / "digits" / "teacher.yaml")


def test_a_config_that_does_not_exist_is_an_error_with_close_names():
    with pytest.raises(UsageError, match="there is no config digits/logit_maching; did you mean digits/logit_matching"):
        find_config("digits/logit_maching")
    with pytest.raises(
        UsageError, match=r"there is no config configs/digit/teacher\.yaml; did you mean .*digits/teacher"
    ):
        find_config("configs/digit/teacher.yaml")


@pytest.mark.parametrize("name", ["", "digits", "/", "../secret", "qqqqqqqqqqqq"])
def test_what_is_no_config_is_an_error_in_one_line(name):
    with pytest.raises(UsageError, match="there is no config") as caught:
        find_config(name)
    assert "\n" not in str(caught.value)
