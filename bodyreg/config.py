"""Configurations: dataclasses filled from YAML files and `section.key=value` overrides.

A dataclass is the schema: its fields are the only keys, its types are checked, its docstrings say what a key means.
Unknown keys are refused and the nearest known one is named. OmegaConf does the typing; callers see plain dataclasses.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

T = TypeVar("T")


def load(schema: type[T], source: str | Path | None = None, overrides: Iterable[str] = ()) -> T:
    """An instance of `schema` from a file and overrides.

    Args:
        schema: dataclass, fields may be dataclasses, lists and dictionaries.
        source: path of a YAML file or the name of a shipped one (`find_config`); None for the defaults alone.
        overrides: `section.key=value` strings, later ones win over earlier ones and over the file.

    Raises:
        ValueError: unknown key (with the nearest known one), a value of the wrong type, a file that is no YAML mapping.
    """
    if not (isinstance(schema, type) and is_dataclass(schema)):
        raise ValueError(f"{schema!r} is not a dataclass type. Pass the class that describes the configuration.")
    config = OmegaConf.structured(schema)
    if source is not None:
        path = find_config(source)
        config = _merge(config, _read(path), str(path))
    for override in overrides:
        config = _merge(config, _parse_override(override), f"override {override!r}")
    try:
        return OmegaConf.to_object(config)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ValueError(
            f"The configuration {source or 'without a file'} is not complete: {_first_line(error)}. "
            f"Give every required key of {schema.__name__} a value."
        ) from error


def save(config: Any, path: str | Path) -> None:
    """Write a configuration dataclass as YAML; `load` with its class reads it back equal."""
    Path(path).write_text(to_yaml(config), encoding="utf-8")


def to_yaml(config: Any) -> str:
    """The YAML text of a configuration dataclass."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def find_config(name_or_path: str | Path) -> Path:
    """The file a configuration name means: a path as it stands, else a shipped configuration of that name.

    Raises:
        ValueError: nothing of that name; the message lists the shipped names.
    """
    given = Path(name_or_path)
    if given.is_file():
        return given
    stem = given.name.removesuffix(".yaml").removesuffix(".yml")
    shipped = shipped_configs()
    # A path whose folder does not exist here ("configs/x.yaml" run from elsewhere) still names the shipped file.
    if stem in shipped and str(given.parent) in (".", "configs"):
        return shipped[stem]
    near = difflib.get_close_matches(stem, shipped, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise ValueError(
        f"No configuration {str(name_or_path)!r} was found. {hint}"
        f"Give the path of a YAML file or one of: {', '.join(shipped) or 'none is shipped'}."
    )


def content(source: str | Path) -> dict[str, Any]:
    """What the file of a configuration says, unchecked: its sections tell which dataclass describes it.

    Nothing for a file that cannot be read; what is wrong with it is said where it is loaded.
    """
    try:
        found = OmegaConf.to_container(OmegaConf.load(find_config(source)), resolve=False)
    except (YAMLError, UnicodeDecodeError, OmegaConfBaseException, OSError):
        return {}
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}


def model_name(source: str | Path) -> str:
    """Name of the model that a configuration is for, empty where its file names none."""
    model = content(source).get("model")
    return str(model.get("name", "")) if isinstance(model, dict) else ""


def shipped_configs() -> dict[str, Path]:
    """Names and paths of the configurations that travel with the package (or lie in the checkout's `configs`)."""
    here = Path(__file__).resolve().parent
    found: dict[str, Path] = {}
    for folder in (here / "configs", here.parent / "configs"):
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def _read(path: Path) -> DictConfig:
    try:
        loaded = OmegaConf.load(path)
    except (YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise ValueError(f"{path} is not valid YAML: {_first_line(error)}. Mend the file.") from error
    if not isinstance(loaded, DictConfig):
        raise ValueError(f"{path} holds a {type(loaded).__name__}, not keys and values. Write `key: value` lines.")
    return loaded


def _parse_override(text: str) -> DictConfig:
    key, separator, _ = text.partition("=")
    if not separator or not key.strip() or any(not part for part in key.split(".")):
        raise ValueError(f"The override {text!r} is not of the form section.key=value. Write it so: train.steps=100.")
    try:
        return OmegaConf.from_dotlist([text])
    except (YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"The override {text!r} cannot be read: {_first_line(error)}. Quote its value.") from error


def _merge(config: DictConfig, addition: DictConfig, origin: str) -> DictConfig:
    _refuse_unknown(config, addition, origin)
    try:
        with flag_override(config, "readonly", False):  # frozen dataclasses arrive read-only
            _unlock(config)
            merged = OmegaConf.merge(config, addition)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        where = f" for {key!r}" if key else ""
        raise ValueError(
            f"{origin} has a value{where} that does not fit: {_first_line(error)}. Give a value of the field's type."
        ) from error
    return merged  # type: ignore[return-value]


def _unlock(config: DictConfig) -> None:
    OmegaConf.set_readonly(config, False)
    for key in config:
        if not OmegaConf.is_missing(config, key):
            child = config._get_node(key)
            if isinstance(child, DictConfig) and not child._is_none():
                _unlock(child)


def _refuse_unknown(config: DictConfig, addition: DictConfig, origin: str, prefix: str = "") -> None:
    """Walk both trees; only nodes that a dataclass describes have a fixed list of keys."""
    schema = OmegaConf.get_type(config)
    fixed = isinstance(schema, type) and is_dataclass(schema)
    for key in addition:
        name = prefix + str(key)
        if fixed and key not in config:
            known = [str(k) for k in config]
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"Did you mean {prefix}{near[0]}?" if near else f"Known here: {', '.join(known)}."
            raise ValueError(f"{origin} has the unknown key {name!r}. {hint}")
        if key in config and not OmegaConf.is_missing(config, key) and not OmegaConf.is_missing(addition, key):
            child, new = config._get_node(key), addition._get_node(key)
            if isinstance(child, DictConfig) and isinstance(new, DictConfig) and not child._is_none():
                _refuse_unknown(child, new, origin, f"{name}.")


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
