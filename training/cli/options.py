"""The options of commands that fit, made from what `FitConfig` says of each setting."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer

from training.config import PRESETS, FitConfig, Option

Command = TypeVar("Command", bound=Callable[..., None])
SETTINGS: dict[str, tuple[Any, Option]] = {
    name: get_args(hint)
    for name, hint in get_type_hints(FitConfig, include_extras=True).items()
    if get_origin(hint) is Annotated
}  # the settings that users can change, each with its type and its Option


def fit_option(setting: str) -> Any:
    """The command-line option of a setting."""
    _, said = SETTINGS[setting]
    name = said.name or setting.replace("_", "-")
    return typer.Option(f"--{name}", help=said.help, min=said.low, max=said.high)


Seed = Annotated[int, fit_option("seed")]
Preset = Annotated[str, fit_option("preset")]
Pretrained = Annotated[str | None, fit_option("pretrained")]


def with_fit_options(command: Command) -> Command:
    """Gives a command an option for each of SETTINGS, instead of its `**settings`.

    Typer reads a command's signature, so the command gets a signature that names them all. Some defaults are not valid
    values of the option, such as 0 for --layers. These become None, and the default in `FitConfig` stays in force.
    """
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    added = []
    for name, (kind, said) in SETTINGS.items():
        default = getattr(FitConfig, name)
        if said.low is not None and default is not None and default < said.low:
            kind, default = kind | None, None
        option = Annotated[kind, fit_option(name)]  # type: ignore[valid-type]  # a type known only at run time
        added.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=option))
    command.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]  # not in stubs
    return command


def configure(**given: Any) -> FitConfig:
    """The settings of a fit, with the values that a user gave; None means not given.

    Raises:
        ValueError: a preset that does not exist, or one cost without the other.
    """
    given = {setting: value for setting, value in given.items() if value is not None}
    if ("cost_fp" in given) != ("cost_fn" in given):
        raise ValueError("--cost-fp and --cost-fn belong together: what counts is one against the other")
    if (teacher := given.get("teacher", FitConfig.preset)) not in PRESETS:
        raise ValueError(f"{teacher}: there are the presets {', '.join(PRESETS)}")
    if (preset := given.get("preset", FitConfig.preset)) not in PRESETS:
        raise ValueError(f"--preset {preset}: there are {', '.join(PRESETS)}")
    return FitConfig(**given)
