"""The part of a config that decides the numbers, apart from where files lie and how progress is shown."""

from collections.abc import Mapping
from typing import Any

# Trainer options that change what is learnt; all others say where and how a run runs.
TRAINER_KEYS = (
    "max_epochs", "min_epochs", "max_steps", "min_steps", "precision", "accumulate_grad_batches",
    "gradient_clip_val", "gradient_clip_algorithm", "limit_train_batches", "overfit_batches", "sync_batchnorm",
    "check_val_every_n_epoch", "val_check_interval", "limit_val_batches",
)  # fmt: skip
PLACES = ("data_dir", "eval_batch_size", "resident")  # data options that do not change what is learnt
CACHE_PLACES = (
    "cache_dir",
    "place",
    "max_gib",
    "ahead",
)  # where a teacher's answers are remembered, and when it is asked
MOST_SHOWN = 6

Config = Mapping[str, Any]


def science(config: Config) -> dict[str, Any]:
    """Return what decides the weights: model, data, seed, the Trainer's `TRAINER_KEYS`, callbacks that decide."""
    data = dict(config.get("data") or {})
    data["init_args"] = {key: value for key, value in (data.get("init_args") or {}).items() if key not in PLACES}
    trainer = config.get("trainer") or {}
    options = {key: trainer[key] for key in TRAINER_KEYS if trainer.get(key) is not None}
    # weight averaging, early stopping: what is not ours may change what is learnt
    deciding = [callback for callback in _callbacks(trainer) if _decides(callback)]
    return {
        "model": _without_places(config.get("model")),
        "data": data,
        "seed_everything": config.get("seed_everything"),
        "trainer": options | ({"callbacks": deciding} if deciding else {}),
    }


def aside(config: Config) -> dict[str, Any]:
    """Return what a study may set and `science` leaves out: how a run runs, and what is measured at its end."""
    trainer, arguments = config.get("trainer") or {}, (config.get("data") or {}).get("init_args") or {}
    options = {key: value for key, value in trainer.items() if key not in (*TRAINER_KEYS, "callbacks")}
    own = [callback for callback in _callbacks(trainer) if not _decides(callback)]
    return {
        "trainer": options | {"callbacks": own},
        "data": {key: arguments[key] for key in PLACES if key in arguments},
        "profile": config.get("profile"),
    }


def _callbacks(trainer: Config) -> list[Config]:
    """All of them; a config may name a single one without a list."""
    given = trainer.get("callbacks") or []
    return [given] if isinstance(given, Mapping) else list(given)


def _decides(callback: Config) -> bool:
    """Whether a callback may change what is learnt: of kdlab's own, which measure and write, a budget alone."""
    path = str(callback.get("class_path"))
    return not path.startswith("kdlab.") or path.endswith(".Budget")


def _without_places(node: Any) -> Any:  # noqa: ANN401
    """A part of the model's config without where cached teachers keep their answers."""
    if isinstance(node, list):
        return [_without_places(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    cached = str(node.get("class_path", "")).endswith("CachedTeacher")
    return {
        key: {name: _without_places(value) for name, value in content.items() if name not in CACHE_PLACES}
        if cached and key == "init_args"
        else _without_places(content)
        for key, content in node.items()
    }


def differences(before: Any, now: Any, key: str = "") -> list[str]:  # noqa: ANN401
    """Say in words where two configs differ, key by key; at most `MOST_SHOWN` of them and the number of the rest."""
    found = list(_differences(before, now, key))
    rest = len(found) - MOST_SHOWN
    return [*found[:MOST_SHOWN], f"and {rest} more"] if rest > 0 else found


def _differences(before: Any, now: Any, key: str) -> list[str]:  # noqa: ANN401
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        names = dict.fromkeys([*before, *now])
        return [line for name in names for line in _differences(before.get(name), now.get(name), f"{key}.{name}")]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now) and any(map(_nested, now)):
        pairs = enumerate(zip(before, now, strict=True))
        return [line for i, (old, new) in pairs for line in _differences(old, new, f"{key}[{i}]")]
    if before == now:
        return []
    return [f"{key.lstrip('.').replace('.init_args', '')} was {_short(before)}, is {_short(now)}"]


def _nested(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, (Mapping, list))


def _short(value: Any) -> str:  # noqa: ANN401
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
