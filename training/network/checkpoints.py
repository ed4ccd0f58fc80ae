"""Keeps the state of a fit, so that it can go on after an interruption.

A fit trains several networks. Each training has a name and keeps its state in a folder of that name: a checkpoint after
every epoch, and the learned weights once it is done. Everything else in a fit is fast and is simply repeated. Only
complete checkpoints count, so a fit may be killed at any moment.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback

from service.model.files import write_json, write_whole
from training.config import FitConfig

logger = logging.getLogger(__name__)
WHOLE = "whole"  # a file of a checkpoint, written when all else is on disk
DRAWS = "draws.json"  # states of the random generators that are not torch's


class ResumeError(ValueError):
    """The saved state belongs to another fit."""


@dataclass
class Trainings:
    """The trainings of one fit: the folder that holds theirs, and the names of those that have begun."""

    folder: Path
    begun: set[str] = field(default_factory=set)


_TRAININGS: ContextVar[Trainings | None] = ContextVar("trainings", default=None)


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Within it, trainings keep their state in the folder, and go on from what they find there."""
    token = _TRAININGS.set(Trainings(folder))
    try:
        yield
    finally:
        _TRAININGS.reset(token)


@contextmanager
def training_folder(name: str) -> Iterator[Path]:
    """The folder of a training: in a resumable fit the folder of its name, else a temporary one.

    Raises:
        ValueError: another training of this fit has the same name, and so would go on from the other's state.
    """
    fit = _TRAININGS.get()
    if fit is None:
        with TemporaryDirectory(prefix="recguard-fit-") as folder:
            yield Path(folder)
        return
    if name in fit.begun:
        raise ValueError(f"two trainings of one fit are called {name!r}; each needs a name of its own to be resumed by")
    fit.begun.add(name)
    own = fit.folder / name
    own.mkdir(parents=True, exist_ok=True)
    yield own


def state_folder() -> Path | None:
    """The folder that keeps the state of the fit to which what is trained now belongs; None if it is not resumable."""
    fit = _TRAININGS.get()
    return fit.folder if fit else None


def is_resumable() -> bool:
    """Whether what is trained now belongs to a fit that is resumable."""
    return state_folder() is not None


def begin(folder: Path, fingerprint: str, config: FitConfig, resume: bool) -> FitConfig | None:
    """Makes the folder of a fit, or finds it.

    Returns:
        the settings that a search had found before the fit was interrupted, if any.

    Raises:
        ResumeError: it cannot go on, because data or settings are not the same.
    """
    settings = asdict(config)
    wanted = {"data": fingerprint, "config": settings}
    note = folder / "fit.json"
    if resume and note.exists():
        found = json.loads(note.read_text())
        differs = [name for name, value in settings.items() if found["config"].get(name) != value]
        if found["data"] != fingerprint or differs:
            what = "the data" if found["data"] != fingerprint else ", ".join(differs)
            raise ResumeError(f"--resume: {folder} is of a fit with another {what}; leave --resume out to start anew")
        return FitConfig(**found["settled"]) if found.get("settled") else None
    if resume:
        logger.warning("nothing was left of an interrupted fit in %s; this one starts anew", folder)
    elif note.exists():
        logger.warning("what was left of an interrupted fit in %s goes; --resume would have gone on with it", folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_json(note, wanted)
    return None


def note_settings(folder: Path, config: FitConfig) -> None:
    """Notes the settings that a search has found."""
    note = folder / "fit.json"
    write_json(note, json.loads(note.read_text()) | {"settled": asdict(config)})


def save_done(folder: Path, objective: nn.Module, epochs: int) -> None:
    """Keeps what a training has learned, in place of its checkpoints."""
    state = {name: value.contiguous().clone() for name, value in objective.state_dict().items()}
    write_whole(folder / "done.safetensors", lambda file: save_file(state, file, {"epochs": str(epochs)}))
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


def load_done(folder: Path, objective: nn.Module) -> int | None:
    """Loads what a training had learned; returns its epochs, or None if it was not finished."""
    file = folder / "done.safetensors"
    if not file.exists():
        return None
    objective.load_state_dict(load_file(file))
    with safe_open(file, "pt") as opened:
        return int(opened.metadata()["epochs"])


def latest(folder: Path) -> Path | None:
    """The latest whole checkpoint."""
    found = [c for c in folder.glob("checkpoint-*") if (c / WHOLE).exists()]
    return max(found, key=lambda c: int(c.name.split("-")[1]), default=None)


class Marks(TrainerCallback):
    """Marks a checkpoint as whole, with the state of the generator that its batches are drawn from."""

    def __init__(self, draws: np.random.Generator) -> None:
        self.draws = draws

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (folder / DRAWS).write_text(json.dumps(self.draws.bit_generator.state))
        for file in folder.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        (folder / WHOLE).touch()

    def restore(self, checkpoint: Path) -> None:
        """Sets the generator as it was."""
        self.draws.bit_generator.state = json.loads((checkpoint / DRAWS).read_text())


def wait_for_all() -> None:
    """Waits for all processes that train together."""
    if rank_and_size()[1] > 1:
        torch.distributed.barrier()


def rank_and_size() -> tuple[int, int]:
    """Rank of this process and how many train together."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
