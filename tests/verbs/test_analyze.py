"""The analysis of finished runs, through the command line, against numbers worked out here."""

import contextlib
import csv
import io
import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from kdlab.cli import main
from kdlab.verbs.loaded import load_run
from kdlab.verbs.summary import print_summary
from kdlab.weights import digest

RUN, OTHER, ALONE = (f"runs/digits/{name}-seed0" for name in ("logit_standardization", "logit_matching", "independent"))


def analyze(run, *options):
    assert main(["analyze", run, "--accelerator", "cpu", *options]) == 0
    return json.loads(Path(run, "analysis", "analysis.json").read_text())


def answers(path, split="test"):
    """Logits of student and teacher, and true labels, of a run; float64."""
    run = load_run(path)
    images = getattr(run.data, f"{split}_split")
    seen = (images.images / 255 - run.data.mean[0]) / run.data.std[0]
    with torch.no_grad():
        teacher = run.teacher()
        logits = [
            network(seen).double().numpy() for network in (run.method.student, teacher and teacher.network) if network
        ]
    return logits, images.clean_labels.numpy()


@pytest.fixture(scope="module")
def finished(finished_runs):
    """The analysis of a run against another, and what was shown; do not change it."""
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(shown):
        patch.chdir(finished_runs)
        patch.setattr("sys.argv", ["kdlab"])
        return analyze(RUN, "--against", OTHER), shown.getvalue()


@pytest.fixture
def two(finished, workplace):
    return finished[0]


@pytest.fixture
def no_figures(monkeypatch):
    """They take seconds, and most tests do not look at them."""
    monkeypatch.setattr("kdlab.verbs.analysis_files.draw_all", lambda analysis: {})


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def standardized(z):
    return (z - z.mean(axis=1, keepdims=True)) / (z.std(axis=1, ddof=1, keepdims=True) + 1e-7)


def kl(student, teacher):
    q, p = softmax(teacher), softmax(student)
    return (q * (np.log(q) - np.log(p))).sum(axis=1)


def test_the_figures_are_those_of_the_formulas(two):
    (student, teacher), labels = answers(RUN)
    report = two["splits"]["test"]
    assert report["n"] == 360
    fidelity = report["fidelity"]
    answer, taught = student.argmax(axis=1), teacher.argmax(axis=1)
    both_wrong = (answer != labels) & (taught != labels)
    assert fidelity["agreement"] == pytest.approx((answer == taught).mean())
    assert fidelity["kl"] == pytest.approx(kl(student, teacher).mean(), rel=1e-4)  # float32 logits, other batches
    assert fidelity["both_wrong"] == both_wrong.sum()
    assert fidelity["same_wrong"] == (both_wrong & (answer == taught)).sum()
    p = softmax(student)
    one_hot = np.eye(10)[labels]
    assert report["calibration"]["student"]["nll"] == pytest.approx(-np.log(p[one_hot == 1]).mean(), rel=1e-4)
    assert report["calibration"]["student"]["brier"] == pytest.approx(((p - one_hot) ** 2).sum(axis=1).mean(), rel=1e-4)


def test_the_student_and_teacher_have_the_accuracy_and_ece_of_the_result(two):
    result = json.loads(Path(RUN, "result.json").read_text())
    for role in ("student", "teacher"):
        calibration = two["splits"]["test"]["calibration"][role]
        for name in ("accuracy", "nll", "ece", "brier"):
            assert calibration[name] == pytest.approx(result[role]["test"][name], abs=2e-5)  # float32 there
    fidelity, tested = two["splits"]["test"]["fidelity"], result["student"]["test"]
    assert tested["teacher_kl"] == pytest.approx(fidelity["kl"], rel=1e-4)
    for name in ("agreement", "same_wrong_rate", "spearman"):
        assert tested[name] == pytest.approx(fidelity[name], abs=2e-5)


def test_the_main_figures_are_in_the_result_by_split(two):
    result = json.loads(Path(RUN, "result.json").read_text())
    assert {"student", "teacher", "protocol", "environment"} < set(result)
    for split in ("test", "train"):
        figures, report = result["analysis"][split], two["splits"][split]
        assert figures["n"] == report["n"]
        assert figures["agreement"] == report["fidelity"]["agreement"]
        assert figures["student_brier"] == report["calibration"]["student"]["brier"]
        assert figures["against"] == "logit_matching-seed0"
        cases = report["comparison"]["logit_standardization"]["mismatches"]
        assert (figures["mismatches"], figures["mended"]) == (cases["mismatches"], cases["mended"])
    assert result["analysis"]["student_sha256"] == result["student"]["weights_sha256"]
    assert result["analysis"]["teacher_sha256"] == result["teacher"]["weights_sha256"]


def test_the_origin_names_weights_settings_versions_and_precision(two):
    origin = two["origin"]
    run = load_run(RUN)
    assert origin["student_sha256"] == digest(run.method.student)
    assert origin["teacher_sha256"] == digest(run.teacher().network)
    assert two["origin_against"]["student_sha256"] == digest(load_run(OTHER).method.student) != origin["student_sha256"]
    assert two["origin_against"]["teacher_sha256"] == origin["teacher_sha256"]
    assert (origin["precision"], origin["precision_of_run"]) == ("32-true", "32-true")
    assert origin["environment"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert "git_commit" in origin["environment"]


def test_temperature_and_ddof_are_those_of_the_runs_loss_unless_given(two, copied, no_figures, monkeypatch):
    assert (two["origin"]["temperature"], two["origin"]["ddof"]) == (2.0, 1)  # logit standardization's, not 4
    assert two["splits"]["test"]["fidelity"]["temperature"] == 2.0
    folder = copied("logit_standardization-seed0")
    content = yaml.safe_load((folder / "config.yaml").read_text())
    content["model"]["init_args"] |= {"temperature": 3.0, "ddof": 0}
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    given = {(): (3.0, 0), ("--temperature", "5", "--ddof", "1"): (5.0, 1)}
    for options, (temperature, ddof) in given.items():
        found = analyze(str(folder), "--split", "test", *options)
        assert (found["origin"]["temperature"], found["origin"]["ddof"]) == (temperature, ddof)
        assert found["splits"]["test"]["fidelity"]["temperature"] == temperature
        assert found["splits"]["test"]["logit_standardization"]["ddof"] == ddof
    assert analyze(ALONE, "--split", "test")["origin"]["temperature"] == 4.0  # no loss to ask


def test_toy_tables_stand_once_and_the_page_is_written(two):
    assert "toy_examples" not in two["splits"]["test"]
    assert two["toy_examples"]["4 classes"][0]["kl"] == pytest.approx(0.1749, abs=5e-5)
    page = Path(RUN, "analysis", "logit_standardization.md").read_text()
    assert page.count("## Toy examples") == 1
    for split in ("test", "train"):
        n = two["splits"][split]["n"]
        assert f"## logit_standardization-seed0, {split} split: {n:,} images" in page
        kl = two["splits"][split]["logit_standardization"]["kl"]
        assert f"| logit_standardization-seed0 | all | {n:,} | {kl:.4f} |" in page


def test_a_retrained_teacher_or_student_is_noticed(copied, no_figures, capsys):
    folder = copied("logit_matching-seed0")
    result = json.loads((folder / "result.json").read_text())
    result["teacher"]["weights_sha256"] = "0" * 64
    (folder / "result.json").write_text(json.dumps(result))
    analyze(str(folder), "--split", "test")
    shown = capsys.readouterr().err
    assert "the teacher of logit_matching-seed0 has other weights now" in shown
    assert "the student of" not in shown


def test_what_fails_late_leaves_the_earlier_analysis_whole(copied, the_error):
    folder, second = copied("logit_matching-seed0"), copied("independent-seed0")
    analyze(str(folder), "--split", "test")
    files = [*(folder / "analysis").iterdir(), folder / "result.json"]
    before = {path: path.read_bytes() for path in files}
    content = yaml.safe_load((second / "config.yaml").read_text())
    content["data"]["init_args"]["val_fraction"] = 0.0
    (second / "config.yaml").write_text(yaml.safe_dump(content))
    # the test split is the same, and then there is no validation split
    arguments = ["analyze", str(folder), "--against", str(second), "--accelerator", "cpu", "--split", "test", "val"]
    assert main(arguments) == 2
    assert "the val split of independent-seed0 is empty" in the_error()
    content["data"]["init_args"] |= {"val_fraction": 0.1, "split_seed": 5}
    (second / "config.yaml").write_text(yaml.safe_dump(content))
    assert main(arguments) == 2
    assert "answered images with different labels" in the_error()
    assert {path: path.read_bytes() for path in [*(folder / "analysis").iterdir(), folder / "result.json"]} == before


def test_a_checkpoint_that_is_named_is_the_one_analysed_and_beside_the_result(copied, no_figures):
    folder = copied("independent-seed0")
    last = folder / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    content["state_dict"]["student.classifier.bias"][0] += 1000  # it answers nothing else any more
    torch.save(content, folder / "checkpoints" / "zeros.ckpt")
    result = (folder / "result.json").read_bytes()
    assert main(["analyze", str(folder / "checkpoints" / "zeros.ckpt"), "--accelerator", "cpu", "--split", "test"]) == 0
    found = json.loads((folder / "analysis" / "zeros" / "analysis.json").read_text())
    assert found["origin"]["weights"] == "zeros.ckpt"
    accuracy = found["splits"]["test"]["calibration"]["student"]["accuracy"]
    assert accuracy == pytest.approx((load_run(folder).data.test_split.labels == 0).double().mean().item())
    assert (folder / "result.json").read_bytes() == result


def test_a_teacher_that_is_gone_does_not_cost_the_analysis_of_before(
    copied, tmp_path, monkeypatch, no_figures, the_error
):
    folder = copied("logit_matching-seed0")
    before = analyze(str(folder), "--split", "test")
    monkeypatch.chdir(tmp_path)  # where no teacher is
    assert main(["analyze", str(folder), "--accelerator", "cpu", "--split", "test"]) == 4
    assert "teacher" in the_error()
    assert json.loads((folder / "analysis" / "analysis.json").read_text()) == before
    without = analyze(str(folder), "--split", "test", "--without_teacher")
    assert without["splits"]["test"]["fidelity"] is None


def test_a_run_is_not_compared_with_itself(workplace, the_error):
    assert main(["analyze", RUN, "--against", RUN, "--accelerator", "cpu"]) == 2
    assert f"--against is {RUN}, the run itself; name another run" in the_error()


def test_without_a_result_the_analysis_is_written_and_that_is_said(copied, no_figures, capsys):
    folder = copied("independent-seed0")
    (folder / "result.json").unlink()
    analyze(str(folder), "--split", "test")
    assert "result.json is not there or damaged, so the main figures are not added to it" in capsys.readouterr().err
    assert not (folder / "result.json").exists()


def test_mismatches_of_two_students_are_those_of_the_definition(two):
    (first, teacher), labels = answers(RUN)
    (second, _), _ = answers(OTHER)
    right = first.argmax(axis=1) == labels, second.argmax(axis=1) == labels
    plain, scaled = [], []
    for student in (first, second):
        plain.append(kl(student, teacher))
        scaled.append(kl(standardized(student), standardized(teacher)))
    mismatch = mended = 0
    for i in np.flatnonzero(right[0] != right[1]):
        good, bad = (0, 1) if right[0][i] else (1, 0)
        if plain[bad][i] < plain[good][i]:
            mismatch += 1
            mended += scaled[good][i] < scaled[bad][i]
    found = two["splits"]["test"]["comparison"]["logit_standardization"]["mismatches"]
    assert found["students"] == ["logit_standardization-seed0", "logit_matching-seed0"]
    assert (found["mismatches"], found["mended"]) == (mismatch, mended)
    assert found["one_right"] == (right[0] != right[1]).sum() > 0
    assert len(found["cases"]) == mismatch
    assert two["splits"]["test"]["comparison"]["teacher_difference"] == 0


def test_noisy_labels_are_counted_on_the_training_split_only(two):
    noise = two["splits"]["train"]["denoising"]["student"]
    assert (noise["n"], noise["n_noisy"]) == (1293, 129)
    assert noise["corrected"] + noise["memorised"] + noise["other"] == 129
    assert two["splits"]["test"]["denoising"]["student"] is None


def test_figures_are_written_for_every_split_and_the_same_again(workplace, two):
    folder = workplace / RUN / "analysis"
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    kinds = (
        "reliability_student", "reliability_teacher", "confusion", "accuracy_by_class", "kl_by_sample", "cka",
        "mismatches",
    )  # fmt: skip
    texts = "analysis.json", "logit_standardization.md"
    assert set(first) == {*texts, *(f"{split}_{kind}.svg" for split in ("test", "train") for kind in kinds)}
    assert all(content.lstrip().startswith(b"<?xml") for name, content in first.items() if name.endswith(".svg"))


def test_the_same_analysis_gives_the_same_bytes(copied):
    folder = copied("independent-seed0")
    contents = []
    for _ in range(2):
        analyze(str(folder), "--split", "val")
        contents.append({path.name: path.read_bytes() for path in (folder / "analysis").iterdir()})
    assert contents[0] == contents[1]


def test_figures_of_an_earlier_analysis_do_not_stay_behind(workplace):
    old = workplace / OTHER / "analysis" / "train_cka.svg"
    old.parent.mkdir(exist_ok=True)
    old.write_text("old")
    assert list(analyze(OTHER, "--split", "test")["splits"]) == ["test"]
    assert {path.name.partition("_")[0] for path in old.parent.glob("*.svg")} == {"test"}


def test_the_table_shows_the_main_figures(finished):
    two, shown = finished
    report = two["splits"]["test"]
    assert "logit_standardization-seed0: 360 test images" in shown
    assert "logit_standardization-seed0: 1,293 train images" in shown
    for name, value in (
        ("agrees with teacher %", f"{100 * report['fidelity']['agreement']:.2f}"),
        ("KL to teacher", f"{report['fidelity']['kl']:.4f}"),
        ("same wrong answer %", f"{100 * report['fidelity']['same_wrong_rate']:.2f}"),
        ("ECE", f"{report['calibration']['student']['ece']:.4f}"),
        ("Brier", f"{report['calibration']['teacher']['brier']:.4f}"),
        ("CKA of classifier ~ fc", f"{report['cka']['values'][-1][-1]:.4f}"),
        ("noisy labels corrected", f"{two['splits']['train']['denoising']['student']['corrected']} of 129"),
    ):
        line = next(line for line in shown.splitlines() if name in line)
        assert value in line
    cases = report["comparison"]["logit_standardization"]["mismatches"]
    assert f"{cases['mismatches']} of {cases['one_right']}" in shown
    assert f"{cases['mended']} of {cases['mismatches']}" in shown


def test_without_another_run_the_independent_student_beside_it_is_compared(workplace, no_figures, capsys):
    found = analyze(OTHER, "--split", "test")
    assert found["against"].endswith(ALONE)
    assert found["splits"]["test"]["comparison"]["students"] == ["logit_matching-seed0", "independent-seed0"]
    assert "compared with the independent student in" in capsys.readouterr().err


def test_a_run_without_a_teacher_is_analysed_without_it(workplace, capsys):
    found = analyze(ALONE, "--split", "test")
    report = found["splits"]["test"]
    assert found["against"] is None
    assert report["fidelity"] is None
    assert report["undefined"]["fidelity"] == "the run has no teacher"
    (student,), labels = answers(ALONE)
    assert report["calibration"]["student"]["accuracy"] == pytest.approx((student.argmax(axis=1) == labels).mean())
    assert [path.name for path in (workplace / ALONE / "analysis").glob("*.svg")] == ["test_reliability_student.svg"]
    shown = capsys.readouterr().out
    assert "accuracy %" in shown
    assert "teacher" not in shown


def test_an_ensemble_is_compared_with_the_teacher_that_its_members_share(workplace, no_figures):
    report = analyze("runs/digits/sub_student_ensemble-seed0", "--split", "test")["splits"]["test"]
    assert report["fidelity"]["n"] == 360
    assert report["cka"]["student_layers"] == [f"networks.{m}" for m in range(4)]


def test_layers_may_be_named(workplace, no_figures):
    cka = analyze(OTHER, "--split", "test", "--layers", "hidden", "fc")["splits"]["test"]["cka"]
    assert (cka["student_layers"], cka["teacher_layers"], cka["n"]) == (["hidden"], ["fc"], 360)


def test_what_cannot_be_analysed_is_one_line_and_leaves_nothing(copied, tmp_path, the_error):
    assert main(["analyze", str(tmp_path / "nothing")]) == 2
    assert "nothing is no run: it holds no config.yaml" in the_error()
    folder = copied("independent-seed0")
    shutil.rmtree(folder / "analysis", ignore_errors=True)
    assert main(["analyze", str(folder), "--against", str(tmp_path)]) == 2
    assert f"{tmp_path} is no run" in the_error()
    assert not (folder / "analysis").exists()
    (folder / "student.safetensors").write_bytes(b"torn")
    assert main(["analyze", str(folder)]) == 4
    assert "is damaged or no safetensors file" in the_error()


def test_missing_data_are_one_line(tmp_path, monkeypatch, the_error):
    arguments = ["fit", "--config", "mnist/independent", "--runs_dir", str(tmp_path), "--trainer.max_epochs", "1"]

    def refuse(*_, **__):
        raise RuntimeError("Error downloading train: Tried a, b")

    def images(self, part):
        number = 20 if part == "train" else 10
        return torch.zeros(number, 1, 28, 28, dtype=torch.uint8), torch.arange(number) % 10, "made up"

    with monkeypatch.context() as made_up:
        made_up.setattr("kdlab.data.MNIST.prepare_data", lambda self: None)
        made_up.setattr("kdlab.data.MNIST.read", images)
        made_up.setattr("kdlab.data.MNIST.num_train_images", 20)
        made_up.setattr("kdlab.data.MNIST.num_test_images", 10)
        options = ["--data.batch_size", "10", "--data.val_fraction", "0", "--profile", "false"]
        assert main([*arguments, *options]) == 0
    the_run = tmp_path / "mnist" / "independent-seed0"
    monkeypatch.setattr("torchvision.datasets.MNIST.download", refuse)
    arguments = ["analyze", str(the_run), "--data_dir", str(tmp_path / "nowhere"), "--accelerator", "cpu"]
    assert main(arguments) == 4
    assert f"MNIST is not in {tmp_path / 'nowhere' / 'mnist'}" in the_error()
    assert not (the_run / "analysis").exists()


def test_the_main_figures_reach_metrics_csv_and_the_loggers_of_the_run(copied, no_figures, capsys):
    folder = copied("logit_matching-seed0")
    before = list(csv.DictReader((folder / "metrics.csv").open()))
    content = yaml.safe_load((folder / "config.yaml").read_text())
    assert find_spec("mlflow") is None
    content["trainer"]["logger"] = [
        {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": str(folder / "tracked")}},
        {"class_path": "lightning.pytorch.loggers.MLFlowLogger"},  # its package is not installed
    ]
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    figures = analyze(str(folder), "--split", "test")["splits"]["test"]
    assert (
        "lightning.pytorch.loggers.MLFlowLogger gets no figures" in capsys.readouterr().err
    )  # and it costs nothing else
    *kept, added = csv.DictReader((folder / "metrics.csv").open())
    assert [{key: row[key] for key in before[0]} for row in kept] == before
    (tracked,) = csv.DictReader((folder / "tracked" / "lightning_logs" / "version_0" / "metrics.csv").open())
    for row in (added, tracked):
        assert row["step"] == before[-1]["step"]
        assert float(row["analysis/test/agreement"]) == figures["fidelity"]["agreement"]
        assert float(row["analysis/test/student_ece"]) == figures["calibration"]["student"]["ece"]
        assert "analysis/test/against" not in row  # a text


def test_a_figure_that_is_not_defined_is_na_with_its_reason_below(two, capsys):
    report = json.loads(json.dumps(two["splits"]["test"]))
    report["fidelity"] |= {"same_wrong_rate": None, "undefined": {"same_wrong_rate": "never both wrong"}}
    report["calibration"]["teacher"] |= {"optimal_temperature": None,
                                         "undefined": {"optimal_temperature": "no mistakes", "bins": "2 empty"}}  # fmt: skip
    print_summary({"test": report})
    shown = capsys.readouterr().out
    line = next(line for line in shown.splitlines() if "same wrong answer %" in line)
    assert line.split("│")[2].strip() == "n/a"
    assert "same_wrong_rate: never both wrong" in shown
    assert "optimal_temperature of teacher: no mistakes" in shown
    assert "2 empty" not in shown  # bins are in the figure
