"""Stored messages of jsonargparse 4.53 in one line each."""

import pytest

from kdlab.parser_messages import brief


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
