"""Who may import whom: design.md, section 2."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kdlab

PACKAGE = Path(kdlab.__file__).parent
FILES = {
    ".".join(("kdlab", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

# part -> the parts of kdlab that it may import, itself apart
FOUNDATION = {"types", "errors", "atomic", "tensor_files"}
ALLOWED = {
    "types": set(),
    "errors": set(),
    "atomic": {"errors"},
    "tensor_files": {"atomic", "errors"},
    "allocation": set(),
    "blame": set(),
    "close_names": set(),
    "extras": {"errors"},
    "weights": {"tensor_files", "errors"},
    "metrics": {"errors"},
    "losses": {"types", "errors"},
    "models": {"types", "errors", "atomic", "close_names"},
    "data": FOUNDATION,
    "teachers": {*FOUNDATION, "weights", "losses", "models"},
    "methods": {*FOUNDATION, "blame", "weights", "metrics", "losses", "models", "teachers"},
    "profiling": {"types", "errors", "atomic", "models"},
    "analysis": {"types", "errors"},
    "main_options": set(),
    "yaml_check": {"errors"},
    "config_files": {"errors", "close_names", "yaml_check"},
    "kinds": set(),
    "parser_messages": {"close_names", "kinds"},
    "parser": {"blame", "errors", "close_names", "main_options", "parser_messages"},
    "run": {
        *FOUNDATION,
        "extras",
        "config_files",
        "blame",
        "weights",
        "metrics",
        "losses",
        "models",
        "teachers",
        "methods",
        "data",
        "profiling",
        "analysis",
    },
    "verbs": {
        *FOUNDATION,
        "extras",
        "weights",
        "models",
        "teachers",
        "methods",
        "data",
        "profiling",
        "analysis",
        "parser",
        "parser_messages",
        "main_options",
        "close_names",
        "config_checks",
        "config_parts",
        "kinds",
        "config_files",
        "config_cli",
        "yaml_check",
        "messages",
        "run",
        "studies",
    },
    "studies": {
        "errors",
        "extras",
        "atomic",
        "analysis",
        "profiling",
        "run",
        "messages",
        "config_cli",
        "cli",
        "close_names",
        "config_files",
        "yaml_check",
    },
}
MAY_IMPORT_CLI = {"__main__", "studies"}
WITHOUT_LIGHTNING = (
    "types",
    "errors",
    "atomic",
    "tensor_files",
    "weights",
    "metrics",
    "losses",
    "models",
    "teachers",
    "analysis",
)


def part(module):
    """The part of kdlab that a module belongs to: kdlab.losses.base -> losses; the package itself -> ''."""
    return module.split(".")[1] if "." in module else ""


def imported(module):
    """Absolute names of all that a module imports, anywhere in it."""
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            names.add(node.module)
            if node.module == "kdlab":
                names |= {f"kdlab.{alias.name}" for alias in node.names}
    return names


def kdlab_parts(module):
    return {part(name) for name in imported(module) if name.split(".")[0] == "kdlab"} - {""}


def modules_of(*parts):
    return [module for module in FILES if part(module) in parts]


def test_the_parts_are_found():
    assert {"losses", "models", "teachers", "methods", "data", "run", "cli"} <= {part(module) for module in FILES}
    assert {"errors", "losses"} <= kdlab_parts("kdlab.losses.decoupled")


@pytest.mark.parametrize("module", modules_of(*ALLOWED))
def test_imports_point_from_methods_to_types_and_never_back(module):
    own = part(module)
    assert kdlab_parts(module) - {own} <= ALLOWED[own]


@pytest.mark.parametrize("module", modules_of(*WITHOUT_LIGHTNING))
def test_losses_and_models_know_nothing_of_lightning(module):
    assert not {name for name in imported(module) if name.split(".")[0] in ("lightning", "pytorch_lightning")}


@pytest.mark.parametrize("module", modules_of("losses"))
def test_losses_need_nothing_but_torch(module):
    outside = {name.split(".")[0] for name in imported(module)} - set(sys.stdlib_module_names) - {"kdlab"}
    assert outside <= {"torch"}


def test_nothing_but_the_entry_point_and_studies_imports_the_command_line():
    assert {part(module) for module in FILES if "cli" in kdlab_parts(module)} <= MAY_IMPORT_CLI


def test_weights_and_biases_is_imported_by_its_own_modules_only():
    using = [module for module in FILES if any(name.split(".")[0] == "wandb" for name in imported(module))]
    assert using
    assert all(module.startswith("kdlab.run.wandb_") for module in using)


@pytest.mark.parametrize("module", modules_of("analysis"))
def test_an_analysis_imports_matplotlib_for_its_first_figure_only(module):
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    at_once = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name for node in at_once for alias in node.names} | {getattr(node, "module", "") for node in at_once}
    assert not {name for name in names if name and name.split(".")[0] in ("matplotlib", "torchmetrics", "sklearn")}


def test_pyplot_which_keeps_figures_and_may_want_a_screen_is_imported_nowhere():
    assert not [module for module in FILES if any(name.startswith("matplotlib.pyplot") for name in imported(module))]


def test_importing_kdlab_does_not_import_torch():
    code = "import sys, kdlab, kdlab.errors, kdlab.atomic, kdlab.__main__, kdlab.run.folder\n"
    code += "print([name for name in ('torch', 'lightning', 'numpy', 'sklearn') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [["list", "configs"], ["completion", "bash"]], ids=" ".join)
def test_what_needs_no_network_is_answered_without_torch_and_lightning(arguments):
    code = f"import sys; from kdlab.cli import main; assert main({arguments}) == 0; "
    code += "print([name for name in ('torch', 'lightning') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
