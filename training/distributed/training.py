"""Trains one model in several processes of a Ray cluster."""

import logging
from pathlib import Path

import torch

from service.model.bundle import Bundle
from training.config import FitConfig
from training.data.dataset import files_fingerprint
from training.data.read import AS_FOUND, ReadOptions
from training.distributed.scoring import connect
from training.fit.bundle import fit_bundle, unfinished
from training.network.checkpoints import begin
from training.verbosity import quieten

MOST_FAILURES = 3  # failures of workers; after each one, all workers go on from the last checkpoint


def fit_on_ray(
    address: str,
    workers: int,
    events: Path,
    labels: Path | None,
    out: Path,
    config: FitConfig,
    columns: dict[str, str] | None = None,
    name: str | None = None,
    quiet: bool = True,
    resume: bool = False,
    how: ReadOptions = AS_FOUND,
) -> Bundle:
    """The same as `training.fit.bundle.fit_bundle`, in several processes that share every training batch.

    If one dies, all restart and go on from the last checkpoint. With several machines, the paths must be on shared
    storage. Raises ValueError for a private fit, which trains no network.
    """
    config.check_private(ray=True)
    connect(address)
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    events, out = events.absolute(), out.absolute()
    labels = labels.absolute() if labels else None
    begin(unfinished(out), files_fingerprint(events, labels), config, resume)

    level = logging.getLogger("training").getEffectiveLevel()

    def work() -> None:
        quieten(level)
        fit_bundle(events, labels, out, config, columns, name, quiet, resume=True, how=how)

    gpu = torch.cuda.is_available()
    TorchTrainer(
        work,
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
        run_config=RunConfig(
            name=out.name, storage_path=str(unfinished(out)), failure_config=FailureConfig(max_failures=MOST_FAILURES)
        ),
    ).fit()
    return Bundle.open(out)
