import re
from pathlib import Path

import pytest

from kdlab import losses, methods, models
from kdlab.cli import main
from kdlab.verbs.list import LISTED

ROOT = Path(__file__).parents[2]


def names(out):
    return [line.split()[0] for line in out.splitlines() if line.startswith("  ")]


@pytest.mark.parametrize("kind", LISTED)
def test_each_kind_is_listed_with_a_sentence(kind, capsys):
    assert main(["list", kind]) == 0
    title, *rows = capsys.readouterr().out.splitlines()
    assert title == f"{kind}:"
    assert len(rows) >= 4
    assert all(re.fullmatch(r"  \S+ +\S.+", row) for row in rows)


def test_base_classes_are_no_choice(capsys):
    main(["list", "methods"])
    assert set(names(capsys.readouterr().out)) == set(methods.__all__) - {"Method"}
    main(["list", "losses"])
    assert set(names(capsys.readouterr().out)) == set(losses.__all__) - {"LogitLoss", "FeatureLoss"}
    main(["list", "data"])
    assert set(names(capsys.readouterr().out)) == {"Digits", "MNIST", "FashionMNIST", "CIFAR10", "CIFAR100",
                                                   "ImageFolder", "RandomCropFlip", "Mixup", "CutMix"}  # fmt: skip
    main(["list", "profilers"])
    assert "Reporter" not in names(capsys.readouterr().out)


def test_a_network_is_listed_by_the_path_that_a_config_takes(capsys):
    main(["list", "models"])
    assert {f"kdlab.models.{name}" for name in models.__all__} == set(names(capsys.readouterr().out))


def test_a_config_is_listed_by_the_name_that_fit_takes(capsys):
    main(["list", "configs"])
    listed = names(capsys.readouterr().out)
    assert {"digits/logit_matching", "run/wandb", "studies/alpha_mnist"} <= set(listed)
    assert all((ROOT / "configs" / f"{name}.yaml").is_file() for name in listed)


def test_all_kinds_by_default_and_no_other(capsys):
    assert main(["list"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")] == [
        f"{k}:" for k in LISTED
    ]
    assert main(["list", "students"]) == 2
    assert "students" in capsys.readouterr().err
