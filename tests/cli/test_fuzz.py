"""Whatever is typed or written into a config: it runs, or it is refused in one line, and then nothing is written.

The examples are fixed: `derandomize` draws the same ones each time, so a failure is repeated by running the test again.
"""

import contextlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from kdlab.cli import main

# 0 well, 2 usage, 4 files, 5 a loss that is no number: docs/design.md. 1 would be a bug, 3 and 6 cannot be here
DOCUMENTED = (0, 2, 4, 5)
MOST_LINES = 12  # warnings of PyTorch about an odd network come before the message
LONGEST_LINE = 1000  # characters


def cases(number: int) -> settings:
    """Settings for so many fixed examples."""
    return settings(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """Build the parser once, which takes longer than all the rest, and end before the first step of a training."""
    from kdlab.training_cli import KDLabCLI

    kept: dict[str, object] = {}
    build = KDLabCLI.setup_parser

    def setup_parser(cli: KDLabCLI, *arguments: object) -> None:
        if kept:
            vars(cli).update(kept)
            return
        before = set(vars(cli))
        build(cli, *arguments)
        kept.update({name: value for name, value in vars(cli).items() if name not in before})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KDLabCLI, "setup_parser", setup_parser)
        patch.setattr("lightning.pytorch.loops.fit_loop._FitLoop.run", lambda _: None)
        patch.setattr("kdlab.training_cli.conclude", lambda *_: None)
        yield


def obey_the_law(arguments: list[str], files: dict[str, str | bytes] | None = None) -> int:
    """Run a command in an empty folder; ``@IN`` in an argument is the folder of the files."""
    with tempfile.TemporaryDirectory() as place:
        work, inputs = Path(place, "work"), Path(place, "in")
        work.mkdir()
        inputs.mkdir()
        for name, content in (files or {}).items():
            (inputs / name).parent.mkdir(parents=True, exist_ok=True)
            (inputs / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        out, err = io.StringIO(), io.StringIO()
        with contextlib.chdir(work), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([argument.replace("@IN", str(inputs)) for argument in arguments])
        lines = [line for line in err.getvalue().splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("kdlab: error: ")]
        left = sorted(path.relative_to(work).as_posix() for path in work.rglob("*"))
        told = f"exit code {code} of {arguments}, files {files}\n{err.getvalue()}"
    assert code in DOCUMENTED, told
    assert "Traceback" not in err.getvalue(), told
    if code == 0:
        assert not errors, told
    else:
        assert lines[-1:] == errors, told
        assert len(lines) <= MOST_LINES, told
        assert len("kdlab: error: ") < len(errors[0]) <= LONGEST_LINE, told
        assert "bug of kdlab" not in errors[0], told
        assert not left, f"{told}\nleft behind: {left}"
    event(f"exit code {code}")
    return code


# -- what may be given ----------------------------------------------------------------------------------------

ODD_VALUES = (
    "nan", "inf", "-inf", "-1", "0", "1", "0.5", "1e400", "-1e400", "1e-400", "99999999999999999999", "1e3", "0x10",
    "", " ", "null", "None", "~", "true", "[]", "{}", "[1, 2]", "[null]", "[[]]", "{a: 1}", "{class_path: ''}",
    "{class_path: 3}", "{class_path: SoftTargets}", "{init_args: 3}", "{init_args: {a: 1}}", "SoftTargets", "HintLoss",
    "Digits", "LogitMatching", "IndependentStudent", "EMATeacher", "Mixup", "RandomCropFlip", "torch.nn.Linear",
    "torch.nn.Identity", "torch.optim.SGD", "torch.optim.lr_scheduler.ReduceLROnPlateau",
    "torch.optim.lr_scheduler.StepLR", "kdlab.models", "kdlab.models.ResNet21", "kdlab.models.DigitsConv", "os.system",
    "os", "a..b", ".", "..", "/", "/dev/null", "/etc/passwd", "nosuch.yaml", "@IN", "@IN/o.yaml", "ünïcödé", "😀",
    "\u202e", "a\nb", "--", "-", "=", "!!python/object/apply:os.system [id]", "&a [*a]", "*a", "[" * 200, "{" * 200,
    "a: b: c", "'", '"', "%s", "{0}", "${HOME}", "$(id)", "\\", "fc", "layer9", "x" * 300, "2026-11-22", "1_000", "1:30",
    "{class_path: kdlab.models.DigitsConv, init_args: {widths: [0, 0, 0]}}",
    "{class_path: kdlab.models.DigitsConv, init_args: {widths: [-1, 2, 3]}}",
    "{class_path: kdlab.losses.SoftTargets, init_args: {temperature: .nan}}",
    "{class_path: torch.optim.SGD, init_args: {lr: .inf}}",
    "{class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 0}}",
)  # fmt: skip

KEYS = (
    "model", "model.student", "model.teacher", "model.teacher.checkpoint", "model.temperature", "model.alpha",
    "model.label_weight", "model.logit_loss", "model.optimizer", "model.optimizer.lr", "model.optimizer.momentum",
    "model.lr_scheduler", "model.student.widths", "model.student.num_classes", "model.seed", "data",
    "data.batch_size", "data.eval_batch_size", "data.val_fraction", "data.train_per_class", "data.label_noise",
    "data.label_noise_kind", "data.augmentation", "data.mixing", "data.mean", "data.std", "data.split_seed",
    "data.data_dir", "data.resident", "trainer.max_epochs", "trainer.max_steps", "trainer.accelerator",
    "trainer.precision", "trainer.callbacks", "trainer.logger", "trainer.log_every_n_steps",
    "trainer.limit_train_batches", "trainer.limit_val_batches", "trainer.accumulate_grad_batches",
    "trainer.gradient_clip_val", "trainer.check_val_every_n_epoch", "trainer.max_time", "trainer.plugins",
    "trainer.profiler", "trainer.deterministic", "seed_everything", "experiment", "name", "runs_dir", "profile",
    "ckpt_path", "config", "print_config", "trainer", "model.class_path", "model.init_args", "data.init_args",
)  # fmt: skip

REHEARSAL = ["--trainer.fast_dev_run", "true"]
# a run that makes its folder when all has been built; last, so that no odd value leads out of the place of a test
REAL = ["--runs_dir", "runs", "--experiment", "fuzz", "--name", "run"]
ways = st.sampled_from((REHEARSAL, REHEARSAL, REAL))
BASES = (
    ["--config", "digits/independent"],
    ["--config", "digits/logit_matching", "--model.teacher.recipe", "null", "--model.teacher.checkpoint", "null"],
)

values = st.one_of(
    st.sampled_from(ODD_VALUES),
    st.sampled_from(("null", "-1", "0", "1", "2", "0.5", "1.5", "1e30", "99999999999999999999", "true")),
    st.integers().map(str),
    st.floats().map(repr),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12),
)


@st.composite
def keys(draw: st.DrawFn) -> str:
    """A key of a config: right, misspelt, or none at all."""
    key = draw(st.sampled_from(KEYS))
    kind = draw(st.integers(0, 9))
    if kind == 0:
        at = draw(st.integers(0, len(key) - 1))
        return key[:at] + draw(st.sampled_from(("", "x", ".", "-", "é", key[at] * 2))) + key[at + 1 :]
    if kind == 1:
        return draw(st.text("abc.-_=[]{}0 é", max_size=8))
    return key


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """``fit`` with overrides, in any order and either spelling, and now and then a stray word."""
    parts = [draw(st.sampled_from(BASES))]
    for _ in range(draw(st.sampled_from((1, 1, 1, 1, 2, 3)))):
        key, value = draw(keys()), draw(values)
        parts.append([f"--{key}={value}"] if draw(st.booleans()) else [f"--{key}", value])
    if draw(st.integers(0, 9)) == 0:
        parts.append([draw(values)])
    return ["fit", *(word for part in draw(st.permutations(parts)) for word in part), *draw(ways)]


NUMERIC = tuple(
    key for key in KEYS if key.rpartition(".")[2] in (
        "temperature", "alpha", "label_weight", "lr", "momentum", "num_classes", "seed", "batch_size", "eval_batch_size",
        "val_fraction", "train_per_class", "label_noise", "split_seed", "max_epochs", "max_steps", "log_every_n_steps",
        "limit_train_batches", "limit_val_batches", "accumulate_grad_batches", "gradient_clip_val",
        "check_val_every_n_epoch", "seed_everything",
    )
)  # fmt: skip
numbers = st.one_of(
    st.sampled_from((0, 1, -1, 2, 10**6, 10**20, 2**31, 2**32, 2**63, 0.5, 1.5, -0.5, 1e-30, 1e30, 1e308, None)),
    st.integers(-5, 300),
    st.floats(-1, 2),
    st.sampled_from((float("nan"), float("inf"))),
)


@st.composite
def number_lines(draw: st.DrawFn) -> list[str]:
    """``fit`` with a number where a number belongs: what the parser cannot refuse."""
    arguments = ["fit", *draw(st.sampled_from(BASES))]
    for key in draw(st.lists(st.sampled_from(NUMERIC), min_size=1, max_size=2)):
        arguments.append(f"--{key}={yaml.safe_dump(draw(numbers)).split()[0]}")
    return [*arguments, *draw(ways)]


def nested(key: str, value: object) -> object:
    """The mapping in which a key with dots leads to a value, as a config has it."""
    first, *parts = key.split(".")
    for part in reversed(parts):
        value = {part: value} if first == "trainer" or part == "init_args" else {"init_args": {part: value}}
    return {first: value}


plain = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(ODD_VALUES), st.binary(max_size=3),
    st.dates(), st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)  # fmt: skip
contents = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab_", max_size=3) | plain, inner),
    max_leaves=4,
)
RAW = (
    "", "#", "- 1", "a", "a: [", "a: b: c", "\ta: 1", "a: 1\na: 2", "? [1]\n: 2", "? {a: 1}\n: 2", "1: 2", "null: 1",
    "a: &a [*a]", "a: &a {b: *a}", "a: *nothing", "<<: 3", "a: &a {b: 1}\nmodel: {<<: *a}", "%YAML 9.9\n---\na: 1",
    "a: 1\n---\nb: 2", "a: !!python/object/apply:os.system [id]", "model: !!python/name:os.system", "a: !b c",
    "model: !!set {a, b}", "data: !!binary aGk=", "model: o.yaml", "model: {init_args: {student: o.yaml}}",
    "data: " + "[" * 100 + "]" * 100, "data: " + "{a: " * 60 + "1" + "}" * 60, "data: " + "[" * 3000 + "]" * 3000,
    "\n".join(["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9))]),
    "model: {class_path: }", "model: {class_path: [a]}", "data: {init_args: }", "data: {init_args: [1]}", "trainer: ",
    "trainer: []", "trainer: {callbacks: [{class_path: 1}]}", "config: 3", "config: [x]", "fit: {data: 3}",
    "subcommand: test", "print_config: true", "model.alpha: 3", 'name: "a\\0b"', 'runs_dir: "a\\0b"', "ckpt_path: ''",
)  # fmt: skip


@st.composite
def config_files(draw: st.DrawFn) -> bytes:
    """An overlay: odd values at keys of a config, odd YAML, or no YAML at all."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(st.binary(max_size=40))
    if kind <= 3:
        return draw(st.sampled_from(RAW)).encode()
    content = nested(draw(keys()), draw(contents))
    return yaml.safe_dump(content, allow_unicode=True).encode()


WORDS = (
    "", "-", "--", "-h", "--help", "x", "@IN", "@IN/a", "@IN/run", "@IN/study", "@IN/o.yaml", "/dev/null", "nosuch",
    "digits/independent", "digits_alpha", "studies/digits_alpha", "ünï", "😀", "a/b/c", "../x", "x" * 300, "1,2", "0", "-1",
    "nan", "1e400", "99999999999999999999", "ResNet21", "ResNet20(depth=3)", "ResNet20(num_classes=-1)", "ResNet20(", "os.system",
    "os.system(id)", "kdlab.losses.SoftTargets", "TimmModel(name=nosuch)", "MNISTPerceptron", "null", "[]", "last", "best",
)  # fmt: skip
OPTIONS = (
    "--config", "--out", "--format", "--data", "--image_shape", "--num_classes", "--threads", "--batch_size", "--seconds",
    "--variants", "--against", "--split", "--layers", "--temperature", "--ddof", "--data_dir", "--overwrite", "--tolerance",
    "--views", "--quick", "--jobs", "--shard", "--png", "--ckpt_path", "--name", "--outt", "--o", "--without_teacher",
)  # fmt: skip
VERBS = ("profile", "analyze", "export", "cache", "study", "report", "sync", "dashboard", "test", "validate", "predict")
JSON = ("", "{", "[]", "null", "3", "{}", "[" * 5000, '{"student": 3}', '{"format": 1, "runs": 3}', "\0", '{"a": NaN}')
FOREIGN = ("", "a: 1", "[]", "model: 3", "variants: 3", "variants: {a: 3}", "variants: {a: {base: nosuch}}", "x: !!python/name:os",
           "class_path: os.system", "class_path: kdlab.models.ResNet21", "a: &a [*a]", "variants: {a: {base: digits/independent,"
           " grid: {data.batch_size: [0]}}}", "variants: {a: {base: digits/independent, set: {data.x: 1}}}")  # fmt: skip


@st.composite
def verb_calls(draw: st.DrawFn) -> tuple[list[str], dict[str, str | bytes]]:
    """Another verb with words and options that are mostly not its own, on folders that are no runs."""
    words = draw(st.lists(st.sampled_from(WORDS), max_size=2))
    for option in draw(st.lists(st.sampled_from(OPTIONS), max_size=2)):
        words += [option, draw(st.sampled_from(WORDS))]
    broken = st.sampled_from(JSON)
    files: dict[str, str | bytes] = {
        "o.yaml": draw(st.sampled_from(FOREIGN)),
        "run/config.yaml": draw(st.sampled_from(FOREIGN)),
        "run/result.json": draw(broken),
        "run/student.safetensors": draw(st.binary(max_size=20)),
        "study/plan.json": draw(broken),
        "study/a/result.json": draw(broken),
    }
    verb = draw(st.sampled_from(VERBS))
    return [verb, *(["--dry-run"] if verb == "study" else []), *words], files


# -- the law --------------------------------------------------------------------------------------------------


@cases(100)
@given(command_lines())
def test_any_command_line_runs_or_is_refused_in_one_line(arguments: list[str]) -> None:
    obey_the_law(arguments)


@cases(40)
@given(number_lines())
def test_any_number_runs_or_is_refused_in_one_line(arguments: list[str]) -> None:
    obey_the_law(arguments)


@cases(70)
@given(config_files(), ways)
def test_any_config_file_runs_or_is_refused_in_one_line(content: bytes, way: list[str]) -> None:
    obey_the_law(["fit", *BASES[0], "--config", "@IN/o.yaml", *way], {"o.yaml": content})


@cases(60)
@given(verb_calls())
def test_any_call_of_another_verb_runs_or_is_refused_in_one_line(
    call: tuple[list[str], dict[str, str | bytes]],
) -> None:
    obey_the_law(*call)


@pytest.mark.faults
@cases(600)
@given(st.data())
def test_many_more_of_all_kinds_run_or_are_refused_in_one_line(data: st.DataObject) -> None:
    kind = data.draw(st.integers(0, 3))
    if kind == 0:
        obey_the_law(data.draw(command_lines()))
    elif kind == 3:
        obey_the_law(data.draw(number_lines()))
    elif kind == 1:
        overlay = {"o.yaml": data.draw(config_files())}
        obey_the_law(["fit", *BASES[1], "--config", "@IN/o.yaml", *data.draw(ways)], overlay)
    else:
        obey_the_law(*data.draw(verb_calls()))
