"""The config files that a command line names. Nothing here imports PyTorch or Lightning, which takes seconds."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from kdlab.close_names import did_you_mean
from kdlab.errors import UsageError
from kdlab.yaml_check import check_yaml


def config_folder() -> Path:
    """Return the folder of kdlab's configs: beside the package in a checkout, inside it where a wheel is installed."""
    package = Path(__file__).parent
    checkout = package.parent / "configs"
    return checkout if checkout.is_dir() else package / "configs"


def find_config(name: str) -> str:
    """Return the path of the config that `name` means.

    A file is taken as it is. Otherwise the configs of the package are searched, with or without ``configs/`` before
    and ``.yaml`` behind the name, so that ``digits/logit_matching`` works from any folder.

    Raises:
        UsageError: if there is no such file; it lists close names.
    """
    if not name:
        raise UsageError("the name of the config is empty; give a file, or one of: kdlab list configs")
    if Path(name).is_file():
        return name
    if Path(name).is_dir():
        raise UsageError(f"the config {name} is a folder; name a file in it")
    folder = config_folder()
    wanted = name.removeprefix("configs/").removesuffix(".yaml")
    if (folder / f"{wanted}.yaml").is_file():
        return str(folder / f"{wanted}.yaml")
    known = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    raise UsageError(f"there is no config {name}{did_you_mean(wanted, known)}")


def find_configs(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the configs that are meant by name as paths, once they were looked at.

    Raises:
        UsageError: if a config is not there or no YAML.
    """
    found = list(arguments)
    for i, argument in enumerate(found):
        if argument in ("--config", "-c") and i + 1 < len(found):
            found[i + 1] = _checked(found[i + 1])
        elif argument.startswith("--config="):
            found[i] = f"--config={_checked(argument.removeprefix('--config='))}"
    return found


def _checked(name: str) -> str:
    path = find_config(name)
    check_yaml(Path(path))
    keys = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    if "variants" in keys and "model" not in keys:
        raise UsageError(f"{path} is a study; run it with: python -m kdlab study {name}")
    if "config" in keys:
        raise UsageError(f"{path} has the key config, which means nothing in a file; give several --config instead")
    return path
