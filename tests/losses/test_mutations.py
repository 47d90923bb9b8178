"""The tests of the losses notice mistakes: each loss is changed in its source, and its own tests must fail.

A sign, a lost T squared, a swapped divergence, another mean: what people get wrong.
"""

import contextlib
import importlib
import multiprocessing
import os
import sys
from pathlib import Path

import pytest

from kdlab import losses

SOURCES, TESTS = Path(losses.__file__).parent, Path(__file__).parent
SWAPPED = "student_log_p, teacher_log_p", "teacher_log_p, student_log_p"
MISTAKES = {
    "soft_targets": [
        ("temperature**2 * divergence", "divergence"),
        ("temperature**2 * divergence", "temperature * divergence"),
        ("temperature**2 * divergence", "-(temperature**2) * divergence"),
        (f"F.kl_div({SWAPPED[0]}", f"F.kl_div({SWAPPED[1]}"),
        ("batchmean", "mean"),
        ("in_float32(teacher) / temperature", "in_float32(teacher)"),
    ],
    "standardized": [
        ("(logits.shape[-1] - ddof)", "logits.shape[-1]"),
        ("shifted - shifted.mean(dim=-1, keepdim=True)", "shifted"),
        ("std + eps, 1.0", "1.0, 1.0"),
        ("standardize(teacher, self.ddof, self.eps))", "teacher)"),
    ],
    "decoupled": [
        ("self.temperature**2 * (", "("),
        ("student_pair, teacher_pair, reduction", "teacher_pair, student_pair, reduction"),
        ("student_others, teacher_others, reduction", "teacher_others, student_others, reduction"),
        ("self.alpha * tckd + self.beta * nckd", "self.beta * tckd + self.alpha * nckd"),
        ("columns >= labels[:, None]", "columns > labels[:, None]"),
    ],
    "dist": [
        ("self.temperature**2 * loss", "loss"),
        ("(teacher - student)", "(student - teacher)"),
        ("(teacher * (teacher - student))", "(student * (teacher - student))"),
        ("student_p.T, teacher_p.T", "student_p, teacher_p"),
    ],
    "hint": [("return F.mse_loss(student, teacher)", "return F.mse_loss(student, teacher, reduction='sum')")],
    "attention": [
        ("pooled.square().mean(dim=1)", "pooled.mean(dim=1)"),
        ("return unit_rows(pooled", "return (pooled"),
        ("min(student.shape[2], teacher.shape[2])", "max(student.shape[2], teacher.shape[2])"),
    ],
    "similarity": [
        (".square().mean()", ".square().sum()"),
        ("return unit_rows(torch.mm(rows, rows.T))", "return torch.mm(rows, rows.T)"),
    ],
    "relational": [
        ("(len(rows) * (len(rows) - 1))", "len(rows) ** 2"),
        ("distances / mean", "distances"),
        ("self.distance_weight * distance + self.angle_weight * angle", "self.distance_weight * distance"),
        ("differences / distances[:, :, None]", "differences"),
    ],
    "pkt": [
        ("(p * ((p + self.eps) / (q + self.eps)).log())", "(q * ((q + self.eps) / (p + self.eps)).log())"),
        ("+ 1) / 2)", "+ 1))[:, :-1]"),
        (".log()).mean()", ".log()).sum()"),
    ],
    "multi_level": [
        ("self.instance_weight * temperature**2", "self.instance_weight"),
        (f"F.kl_div({SWAPPED[0]}", f"F.kl_div({SWAPPED[1]}"),
        ("confidence <= bound)).mean()", "confidence >= bound)).mean()"),
        ("mass <= mass.quantile", "mass >= mass.quantile"),
        ("loss + self.batch_weight * pairs", "loss - self.batch_weight * pairs"),
    ],
    "warmup": [("(epoch + 1) / self.epochs", "epoch / self.epochs"), ("self.factor * loss", "loss")],
    "dynamic_temperature": [
        ("(student_temperature * teacher_temperature * divergence)", "divergence"),
        ("2 * self.temperature * teacher_size", "2 * self.temperature * student_size"),
        (f"F.kl_div({SWAPPED[0]}", f"F.kl_div({SWAPPED[1]}"),
    ],
}
CASES = [(name, old, new) for name, mistakes in MISTAKES.items() for old, new in mistakes]


def run_tests(name: str, source: str) -> None:
    """Be a process in which a loss has another source, and leave with the exit code of its tests."""
    module = importlib.import_module(f"kdlab.losses.{name}")
    before = dict(vars(module))
    exec(compile(source, module.__file__ or name, "exec"), vars(module))  # noqa: S102 (our own)
    changed = {id(value): getattr(module, key) for key, value in before.items() if getattr(module, key) is not value}
    for other in [other for key, other in sys.modules.items() if key.startswith("kdlab")]:
        for key, value in [*vars(other).items()]:
            if id(value) in changed:
                setattr(other, key, changed[id(value)])
    for key in [key for key, other in sys.modules.items() if "tests" in str(getattr(other, "__file__", ""))]:
        del sys.modules[key]  # they know the losses of before
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        code = pytest.main([str(TESTS / f"test_{name}.py"), "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
                            "--override-ini", "addopts=--import-mode=importlib"])  # fmt: skip
    os._exit(code)


def outcome(name: str, source: str) -> int | None:
    """The exit code of the tests of a loss with this source: 0 if all pass, 1 if one fails."""
    process = multiprocessing.get_context("fork").Process(target=run_tests, args=(name, source))
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.faults
@pytest.mark.parametrize("name", MISTAKES)
def test_the_tests_of_a_loss_pass_where_nothing_is_changed(name: str) -> None:
    assert outcome(name, (SOURCES / f"{name}.py").read_text(encoding="utf-8") + "\n# changed") == 0


@pytest.mark.faults
@pytest.mark.parametrize(("name", "old", "new"), CASES)
def test_the_tests_of_a_loss_notice_a_mistake(name: str, old: str, new: str) -> None:
    source = (SOURCES / f"{name}.py").read_text(encoding="utf-8")
    assert source.count(old) >= 1, "the loss is written otherwise now; write the mistake anew"
    assert outcome(name, source.replace(old, new)) == 1


def test_every_loss_has_mistakes_that_its_tests_must_notice() -> None:
    without = {"__init__", "base", "distributed", "rows"}  # no losses
    assert {path.stem for path in SOURCES.glob("*.py")} - without == set(MISTAKES)
