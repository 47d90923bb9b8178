"""What one number of processes wrote, another reads: weights are tested anywhere, a run goes on as it began."""

import json
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file

from kdlab.cli import main
from kdlab.run.folder import RunFolder

TwoRanks = Callable[..., list[int | None]]
ALONE = ["--trainer.strategy", "auto", "--trainer.devices", "1"]
COMMON = [
    "fit", "--config", "digits/independent", "--config", "run/ddp", "--trainer.max_epochs", "1", "--profile", "false",
    "--data.train_per_class", "112",  # 35 batches of 32: an odd image in the last one would be left out by two
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, two_ranks: TwoRanks) -> dict[int, RunFolder]:
    """The same run in two processes and in one, by their number: the same global batches."""
    folder = tmp_path_factory.mktemp("runs")
    common = [*COMMON, "--runs_dir", str(folder), "--name"]
    assert two_ranks(main, [*common, "two", "--data.batch_size", "16"]) == [0, 0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["kdlab"])  # this comes before the fixture of each test
        assert main([*common, "one", "--data.batch_size", "32", *ALONE]) == 0
    return {2: RunFolder(folder / "digits" / "two"), 1: RunFolder(folder / "digits" / "one")}


def test_the_exported_student_is_the_same(runs: dict[int, RunFolder]) -> None:
    one, two = (load_file(runs[number].student) for number in (1, 2))
    assert list(one) == list(two)
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-5)  # float32; a network without batch norm
    results = [json.loads(runs[number].result.read_text()) for number in (1, 2)]
    assert [result["world_size"] for result in results] == [1, 2]
    assert results[0]["student"]["test"] == pytest.approx(results[1]["student"]["test"], rel=1e-4)


@pytest.mark.parametrize("checkpoint", ["student", "last", "best"])
@pytest.mark.parametrize("verb", ["test", "validate"])
def test_what_two_processes_wrote_is_tested_by_one(verb: str, checkpoint: str, runs: dict[int, RunFolder]) -> None:
    path = getattr(runs[2], checkpoint)
    assert main([verb, "--config", str(runs[2].config), *ALONE, "--ckpt_path", str(path)]) == 0


def test_what_one_process_wrote_is_tested_by_two(runs: dict[int, RunFolder], two_ranks: TwoRanks) -> None:
    together = ["--config", str(runs[1].config), "--config", "run/ddp", "--ckpt_path", str(runs[1].student)]
    assert two_ranks(main, ["test", *together]) == [0, 0]


def test_a_run_of_two_processes_is_not_continued_by_one(
    runs: dict[int, RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["fit", "--config", str(runs[2].config), *ALONE, "--ckpt_path", str(runs[2].last)]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert (
        "the run was started with 2 process(es), now there are 1; continue it with 2 (--trainer.devices times" in error
    )
    assert "Traceback" not in error


def test_a_run_of_one_process_is_not_continued_by_two(
    runs: dict[int, RunFolder], two_ranks: TwoRanks, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["fit", "--config", str(runs[1].config), "--config", "run/ddp", "--ckpt_path", str(runs[1].last)]
    assert two_ranks(main, arguments) == [2, 2]
    error = capfd.readouterr().err
    assert (
        "the run was started with 1 process(es), now there are 2; continue it with 1 (--trainer.devices times" in error
    )
    assert "Traceback" not in error
