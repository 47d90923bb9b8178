"""Options of the verbs: help, strictness, and how numbers are read."""

import argparse
import subprocess
import sys

import pytest

from kdlab.cli import main
from kdlab.verbs import VERBS
from kdlab.verbs.arguments import image_shape, positive_float, positive_int


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_fits_on_a_screen_and_shows_an_example(verb, capsys):
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) < 45
    assert f"  python -m kdlab {verb} " in shown
    assert shown.startswith(f"usage: python -m kdlab {verb} ")


def test_the_help_of_a_verb_imports_neither_torch_nor_lightning():
    code = "import sys; from kdlab.cli import main\n"
    code += f"assert [main([verb, '--help']) for verb in {VERBS}] == [0] * {len(VERBS)}\n"
    code += "print([name for name in ('torch', 'lightning', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


MISTAKES = {
    "unknown option": (["profile", "ResNet20", "--batchsize", "4"], "kdlab profile has no option --batchsize; did you mean --batch_size"),
    "abbreviation": (["profile", "ResNet20", "--sec", "4"], "kdlab profile has no option --sec; did you mean --seconds"),
    "nothing to profile": (["profile"], "the following arguments are required: TARGET; see: python -m kdlab profile --help"),
    "unknown choice": (["profile", "ResNet20", "--format", "xml"], "--format: invalid choice: 'xml'"),
    "no number": (["profile", "ResNet20", "--batch_size", "many"], "--batch_size: many is no whole number of 1 or more"),
    "zero threads": (["profile", "ResNet20", "--threads", "0"], "--threads: 0 is no whole number of 1 or more"),
    "negative time": (["profile", "ResNet20", "--seconds", "-1"], "--seconds: -1 is no number above 0"),
    "image shape": (["profile", "ResNet20", "--image_shape", "32"], "--image_shape: 32 is no image shape; give channels,height,width"),
    "data and a shape": (["profile", "ResNet20", "--data", "MNIST", "--num_classes", "3"], "leave --image_shape and --num_classes out"),
    "no format": (["export", "run"], "the following arguments are required: --format"),
    "tolerance": (["export", "run", "--format", "onnx", "--tolerance", "nan"], "--tolerance: nan is no number above 0"),
    "unknown split": (["analyze", "run", "--split", "dev"], "--split: invalid choice: 'dev'"),
    "unknown verb": (["analyse", "run"], "there is no verb analyse; did you mean analyze?"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_one_line(mistake, the_error):
    arguments, expected = MISTAKES[mistake]
    assert main(arguments) == 2
    assert expected in the_error()


def test_an_image_shape_is_three_positive_numbers():
    assert image_shape("3,32,16") == image_shape("3x32x16") == (3, 32, 16)
    for text in ("3,32", "0,32,32", "a,b,c", "3,32,32,1", "3,-1,32"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"{text} is no image shape"):
            image_shape(text)


def test_numbers_are_positive_and_finite():
    assert positive_int("12") == 12
    assert positive_float("0.5") == 0.5
    for text in ("0", "-1", "1.5", "", "²"):
        with pytest.raises(argparse.ArgumentTypeError, match="no whole number"):
            positive_int(text)
    for text in ("0", "-1", "inf", "nan", "x"):
        with pytest.raises(argparse.ArgumentTypeError, match="no number above 0"):
            positive_float(text)
