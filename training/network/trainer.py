"""The training loop that pretraining and fine-tuning share, on the transformers Trainer."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Sampler
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_pt_utils import get_length_grouped_indices

from service.encoding.encoder import Encoded
from training.config import FitConfig
from training.network.checkpoints import (
    Marks,
    is_resumable,
    latest,
    load_done,
    rank_and_size,
    save_done,
    training_folder,
    wait_for_all,
)
from training.network.model import BehaviourBert

logger = logging.getLogger(__name__)
MOST_IN_BATCH = 16  # sequences


class Draw:
    """Draws one example of each history.

    Args:
        of: int64 (M,), the history of each example.
        weight: float64 (M,), how likely each is among those of its history.

    Attributes:
        chance: float64 (M,), the probability that it is drawn.
        count: number of histories.
    """

    def __init__(self, of: NDArray[np.int64], weight: NDArray[np.float64]) -> None:
        histories, place = np.unique(of, return_inverse=True)
        self.count = len(histories)
        self.chance = weight / np.bincount(place, weight)[place]
        self._order = np.argsort(place, kind="stable")
        self._starts = np.searchsorted(place[self._order], np.arange(self.count))

    def __call__(self, generator: torch.Generator) -> list[int]:
        """One example of each history, by its chance: the smallest of exponential variables with these rates."""
        clock = -np.log1p(-torch.rand(len(self.chance), generator=generator, dtype=torch.float64).numpy())
        clock = (clock / np.maximum(self.chance, 1e-300))[self._order]
        first = np.repeat(np.minimum.reduceat(clock, self._starts), np.diff([*self._starts, len(clock)]))
        hits = np.flatnonzero(clock == first)
        _, one = np.unique(np.searchsorted(self._starts, hits, side="right"), return_index=True)
        found: list[int] = self._order[hits[one]].tolist()
        return found


class LikeLengths(Sampler[int]):
    """Orders sequences so that those of similar length share a batch; each epoch takes `count` of those it draws."""

    def __init__(self, lengths: Sequence[int], draw: Draw, count: int, batch: int, seed: int) -> None:
        self.lengths, self.draw, self.count, self.batch = lengths, draw, count, batch
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self.count

    def skip(self, epochs: int) -> None:
        """Draws the epochs that were already trained, so that the next one is the same as without interruption."""
        for _ in range(epochs):
            deque(self, maxlen=0)

    def __iter__(self) -> Iterator[int]:
        drawn = self.draw(self.generator)
        if self.count < len(drawn):
            some = torch.randperm(len(drawn), generator=self.generator)[: self.count].tolist()
            drawn = [drawn[i] for i in some]
        of_drawn = [self.lengths[i] for i in drawn]
        grouped: Callable[..., list[int]] = get_length_grouped_indices  # transformers leaves it untyped
        yield from (drawn[i] for i in grouped(of_drawn, self.batch, generator=self.generator))


class Collates(Protocol):
    """Makes a batch of examples; what it draws comes from `rng` alone."""

    rng: np.random.Generator

    def __call__(self, examples: list[Any], /) -> dict[str, Any]:
        """The arguments of the objective."""


class _Trainer(Trainer):
    """A Trainer with its own order of sequences and its own measure."""

    name: str
    sampler: LikeLengths
    measure: Callable[[], float]

    def _get_train_sampler(self, *_: Any) -> LikeLengths:
        return self.sampler

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        measured = torch.tensor(self.measure(), dtype=torch.float64)
        if rank_and_size()[1] > 1:
            torch.distributed.broadcast(measured, 0)  # all must agree on which epoch was best
        metrics = {"eval_measured": float(measured), "epoch": self.state.epoch or 0.0}
        if self.args.logging_strategy != "no":
            self.log(dict(metrics))
        logger.info("%s, epoch %d: %.4f on what is held out", self.name, metrics["epoch"], metrics["eval_measured"])
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


@dataclass(frozen=True)
class Training:
    """One training of a network.

    Attributes:
        name: unique name within a fit, by which the training is resumed.
        model: the network that is trained.
        objective: a module that gives {"loss": ...} for what `collator` makes of examples; it holds the model.
        examples, encoded: what the collator takes, and the sequence of each.
        epochs: exact number of epochs; the maximum if there is a measure.
        measure: is called after each epoch; the weights of the epoch with the largest value are kept, and training ends
            after `config.patience` epochs without a larger one.
        share: share of the histories that each epoch shows.
        draw: draws the example that an epoch shows of each history; None shows every example.
    """

    name: str
    model: BehaviourBert
    objective: nn.Module
    examples: Sequence[Any]
    encoded: Sequence[Encoded]
    collator: Collates
    epochs: int
    measure: Callable[[], float] | None = None
    share: float = 1.0
    draw: Draw | None = None


def train(training: Training, config: FitConfig, quiet: bool) -> int:
    """Trains in place with AdamW, a short warm-up and a linear fall to zero.

    In a resumable fit, it goes on where it was interrupted, with the same result as without interruption. If several
    processes train together, each takes its part of every batch.

    Returns:
        The epochs whose weights are kept.
    """
    with training_folder(training.name) as folder:
        if (done := load_done(folder, training.objective)) is not None:
            return done
        epochs = _train(training, config, quiet, folder)
        wait_for_all()  # all have loaded the best checkpoint
        if is_resumable() and rank_and_size()[0] == 0:
            save_done(folder, training.objective, epochs)
        return epochs


def _train(training: Training, config: FitConfig, quiet: bool, folder: Path) -> int:
    set_seed(config.seed)
    adapters = _adapters(training.model, config) if config.lora_rank else None
    lengths = [positions(e, config) for e in training.encoded]
    draw = training.draw or Draw(np.arange(len(lengths)), np.ones(len(lengths)))
    usual = np.dot(draw.chance, lengths) / draw.count
    batch = int(np.clip(config.batch_tokens / usual, 8, MOST_IN_BATCH))  # of all processes together
    count = max(round(training.share * draw.count), 1)
    per_epoch = -(-count // batch)
    steps = per_epoch * training.epochs
    trainer = _Trainer(
        model=training.objective,
        args=_arguments(training, config, quiet, folder, batch),
        data_collator=training.collator,
        train_dataset=list(training.examples),
        eval_dataset=list(training.examples[:1]),  # unused: `measure` knows what it measures on
        callbacks=[EarlyStoppingCallback(early_stopping_patience=config.patience)] if training.measure else [],
        optimizers=_optimizers(training, config, steps),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.name = training.name
    trainer.sampler = LikeLengths(lengths, draw, count, batch, config.seed)
    if training.measure is not None:
        trainer.measure = training.measure
    if config.tensorboard:
        trainer.add_callback(_board(Path(config.tensorboard), type(training.objective).__name__))
    marks = Marks(training.collator.rng)
    trainer.add_callback(marks)
    if (checkpoint := latest(folder)) is not None:
        trained = round(int(checkpoint.name.split("-")[1]) / per_epoch)
        logger.info("going on after epoch %d", trained)
        trainer.sampler.skip(trained)
        marks.restore(checkpoint)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if adapters is not None:
        training.model.bert = adapters.merge_and_unload()
        training.model.requires_grad_(True)
    training.objective.to("cpu")  # what follows, such as the export, expects it where it was
    return round((trainer.state.best_global_step or steps) / per_epoch)


def _optimizers(
    training: Training, config: FitConfig, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW with one rate for the encoder and another for new weights, and the schedule of both rates."""
    bert = training.model.bert
    encoder = [p for n, p in bert.named_parameters() if "word_embeddings" not in n and "lora_" not in n]
    known = {id(p) for p in encoder}
    optimizer = torch.optim.AdamW(
        [
            {
                "params": encoder,
                "lr": config.pretrained_rate if config.starts_pretrained else config.scratch_rate,
            },
            {"params": [p for p in training.objective.parameters() if id(p) not in known], "lr": config.fresh_rate},
        ],
        weight_decay=0.01,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (0.1 * steps + 1), max(1 - step / steps, 0.0) / 0.9)
    )
    return optimizer, schedule


def _arguments(training: Training, config: FitConfig, quiet: bool, folder: Path, batch: int) -> TrainingArguments:
    """What the Trainer is told; `batch` sequences are those of all processes together."""
    measured = training.measure is not None
    workers = rank_and_size()[1]
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=training.epochs,
        per_device_train_batch_size=-(-batch // workers),
        eval_strategy="epoch" if measured else "no",
        save_strategy="epoch" if is_resumable() or measured else "no",
        save_total_limit=2,
        load_best_model_at_end=measured,
        metric_for_best_model="measured",
        restore_callback_states_from_checkpoint=True,
        seed=config.seed,
        use_cpu=not torch.cuda.is_available(),
        ddp_find_unused_parameters=workers > 1,  # a batch may have no type, or no event, that is known
        bf16=_bfloat16_pays(),
        remove_unused_columns=False,
        disable_tqdm=quiet,
        report_to=[],
        logging_strategy="epoch" if config.tensorboard else "no",
        dataloader_pin_memory=False,
    )


def _board(directory: Path, name: str) -> TrainerCallback:
    """Writes losses and measures for TensorBoard, each training under a number of its own."""
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations.integration_utils import TensorBoardCallback

    number = len(list(directory.glob("*")))
    callback: Callable[[Any], TrainerCallback] = TensorBoardCallback  # transformers and torch leave both untyped
    writer: Callable[[str], Any] = SummaryWriter
    return callback(writer(str(directory / f"{number:03d}-{name}")))


def _adapters(model: BehaviourBert, config: FitConfig) -> Any:
    """Low-rank adapters, trained instead of the encoder's weights (Hu et al., "LoRA", ICLR 2022)."""
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    adapted = LoraConfig(
        r=config.lora_rank, lora_alpha=2 * config.lora_rank, target_modules=["query", "key", "value", "dense"]
    )
    adapters = LoraModel(model.bert, adapted, "default")
    model.table.weight.requires_grad_(True)  # its rows are new to the encoder
    return adapters


def _bfloat16_pays() -> bool:
    """Whether this machine computes bfloat16 products in hardware; if emulated, they are slower than float32."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def positions(encoded: Encoded, config: FitConfig) -> int:
    """Positions of a sequence that one epoch trains on."""
    return sum(map(len, encoded.chunks[: config.train_chunks]))


def some_chunks(encoded: Encoded, most: int, rng: np.random.Generator) -> range:
    """At most `most` consecutive chunks of a sequence; if it has more, they are drawn at random each time."""
    first = int(rng.integers(0, max(len(encoded.chunks) - most, 0) + 1))
    return range(first, min(first + most, len(encoded.chunks)))
