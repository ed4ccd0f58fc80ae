"""The options that commands share: those of a fit, from what `FitConfig` says of each setting, and those of reading."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin, get_type_hints

import typer

from training.cli.common import session
from training.config import PRESETS, FitConfig, Option
from training.data.fetch import local
from training.data.read import ReadOptions

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
Kinds = Annotated[str, fit_option("kinds")]
Text = Annotated[str, fit_option("text")]
Missing = Annotated[str, fit_option("missing")]


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


READING = {
    "separator": "Separator of the cells of a CSV file: one character, :: or tab; else found out.",
    "encoding": "Encoding of a file of text, such as utf-16 or gbk; else found out where it is plain.",
    "time_unit": "Unit of times that are numbers: s, ms, us or ns; else seconds, or what they plainly are.",
    "time_zone": "Zone of times without an offset, such as Europe/Berlin; else UTC.",
    "time_format": "How times are written, as strptime takes it: '%d/%m/%Y %H:%M:%S'.",
    "positive": "The label that means anomalous; any other then means normal.",
}  # what `ReadOptions` say of a log and its labels, each with its words


def reads_log(command: Command) -> Command:
    """Gives a command the options of READING and --query instead of its `how`, and brings its log and labels here.

    `--events` and `--labels` may then name what lives elsewhere; the command gets the paths of copies.
    """
    signature = inspect.signature(command, eval_str=True)
    own = {name: p for name, p in signature.parameters.items() if name != "how"}
    for name in own.keys() & {"events", "labels"}:
        _, option = get_args(own[name].annotation)
        kind = str if own[name].default is inspect.Parameter.empty else str | None
        own[name] = own[name].replace(annotation=Annotated[kind, option])  # a Path would lose a slash of s3://
    help_of = {**READING, "query": "Query whose rows are the log, for --events postgresql://..."}
    added = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[str | None, typer.Option(f"--{name.replace('_', '-')}", help=said)],
        )
        for name, said in help_of.items()
    ]

    @functools.wraps(command)
    def reading(**given: Any) -> None:
        told = {name: given.pop(name) for name in READING}
        query = given.pop("query")
        with session(bool(given.get("quiet"))), TemporaryDirectory(prefix="recguard-") as folder:
            given["how"] = ReadOptions(**told)
            given["events"] = local(given["events"], query, Path(folder))
            if given.get("labels") is not None:
                given["labels"] = local(given["labels"], None, Path(folder))
            command(**given)

    reading.__signature__ = signature.replace(parameters=[*own.values(), *added])  # type: ignore[attr-defined]
    return cast(Command, reading)


def configure(**given: Any) -> FitConfig:
    """The settings of a fit, with the values that a user gave; None means not given.

    Raises:
        ValueError: a preset that does not exist, one cost without the other, or what breaks differential privacy.
    """
    given = {setting: value for setting, value in given.items() if value is not None}
    if ("cost_fp" in given) != ("cost_fn" in given):
        raise ValueError("--cost-fp and --cost-fn belong together: what counts is one against the other")
    if (teacher := given.get("teacher", FitConfig.preset)) not in PRESETS:
        raise ValueError(f"{teacher}: there are the presets {', '.join(PRESETS)}")
    if (preset := given.get("preset", FitConfig.preset)) not in PRESETS:
        raise ValueError(f"--preset {preset}: there are {', '.join(PRESETS)}")
    config = FitConfig(**given)
    config.check_private()
    return config
