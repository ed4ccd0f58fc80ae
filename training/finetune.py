"""Fine-tunes the network on labelled sequences with the transformers Trainer.

One training example is a whole sequence: all its windows run together and their logits are pooled as in
`service.windows.combine`, so that what is learned is what is served.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainingArguments, set_seed
from transformers.trainer_pt_utils import LengthGroupedSampler

from service.encoding import Encoded, Encoder
from service.fields import FIRST, Ids
from service.scoring import network_logits
from service.windows import Outputs, pad
from training.calibration import UNLABELLED
from training.config import PRESETS, FitConfig
from training.model import BehaviourBert

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """One sequence with what is known of it.

    Attributes:
        encoded: its windows.
        label: 1 anomalous, 0 normal.
        type: index of the anomaly type, UNLABELLED where normal or unnamed.
        events: int8 (T,) label of each event in the caller's order, UNLABELLED where unknown.
    """

    encoded: Encoded
    label: int
    type: int
    events: NDArray[np.int8]


class Collator:
    """Puts examples into one batch: windows stacked, each with the example it belongs to.

    A sequence of more than `most` windows shows a run of that many, drawn anew each time, and a share of the field
    values becomes unknown.
    """

    def __init__(self, encoder: Encoder, config: FitConfig) -> None:
        self.most, self.unknown_rate = config.train_windows, config.unknown_rate
        self.rng = np.random.default_rng(config.seed)
        # row -> its field's "unknown" row; rows that are no field's value stand for themselves
        self.unknown_of = np.arange(encoder.deep_rows, dtype=np.int32)
        for f, start in zip(encoder.fields, encoder.field_rows, strict=True):
            if start < encoder.deep_rows:
                self.unknown_of[start + FIRST : start + f.size] = start

    def __call__(self, examples: list[Example]) -> dict[str, Tensor]:
        windows, sequence, events = [], [], []
        for i, example in enumerate(examples):
            encoded = example.encoded
            first = int(self.rng.integers(0, max(len(encoded.windows) - self.most, 0) + 1))
            for k in range(first, min(first + self.most, len(encoded.windows))):
                windows.append(encoded.windows[k])
                owner = encoded.owners[k]
                events.append(np.where(owner >= 0, example.events[owner], UNLABELLED))
                sequence.append(i)
        ids = pad(windows)
        hidden = self.rng.random(ids.shape) < self.unknown_rate
        ids = np.where(hidden, self.unknown_of[ids], ids)
        event_labels = np.full(ids.shape[:2], UNLABELLED, dtype=np.int64)
        for row, known in zip(event_labels, events, strict=True):
            row[: len(known)] = known
        return {
            "ids": torch.from_numpy(ids),
            "sequence": torch.tensor(sequence),
            "labels": torch.tensor([e.label for e in examples], dtype=torch.float32),
            "types": torch.tensor([e.type for e in examples]),
            "event_labels": torch.from_numpy(event_labels),
        }


def log_mean_exp(values: Tensor, sequence: Tensor, count: int) -> Tensor:
    """Pools window values by sequence, (W, ...) -> (count, ...): `combine`'s log-mean-exp with gradients."""
    belongs = (sequence.unsqueeze(0) == torch.arange(count).unsqueeze(1)).to(values.dtype)  # (count, W)
    peak = values.detach().amax(dim=0, keepdim=True)
    return (
        belongs @ (values - peak).clamp(min=-80).exp() / belongs.sum(dim=1).reshape(-1, *[1] * (values.dim() - 1))
    ).log() + peak


class Objective(nn.Module):
    """The multi-task loss: sequence, events where known, type where named."""

    def __init__(self, model: BehaviourBert, config: FitConfig) -> None:
        super().__init__()
        self.model, self.event_weight, self.type_weight = model, config.event_weight, config.type_weight

    def forward(
        self, ids: Tensor, sequence: Tensor, labels: Tensor, types: Tensor, event_labels: Tensor
    ) -> dict[str, Tensor]:
        out = self.model(ids)
        logits = log_mean_exp(out.sequence_logit, sequence, len(labels))
        loss = F.binary_cross_entropy_with_logits(logits, labels)
        known = event_labels != UNLABELLED
        if known.any():
            event_loss = F.binary_cross_entropy_with_logits(out.event_logits[known], event_labels[known].float())
            loss = loss + self.event_weight * event_loss
        if (types != UNLABELLED).any():
            pooled = log_mean_exp(out.type_logits, sequence, len(labels))
            loss = loss + self.type_weight * F.cross_entropy(pooled, types, ignore_index=UNLABELLED)
        return {"loss": loss, "logits": logits}


def run_torch(model: BehaviourBert) -> Callable[[Ids], Outputs]:
    """The torch model as the function that `service.scoring.evidence` takes."""

    def run(ids: Ids) -> Outputs:
        model.eval()
        with torch.inference_mode():
            return Outputs(*(t.numpy() for t in model(torch.from_numpy(ids))))

    return run


def _bfloat16_pays() -> bool:
    """Whether products in bfloat16 run in hardware here; where they are emulated they are slower than float32."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


class _Trainer(Trainer):
    """Trainer that batches examples of like length, and validates on whole sequences, all windows."""

    held: list[Example]
    objective: Objective

    def _get_train_sampler(self, *_: Any) -> LengthGroupedSampler:
        lengths = [sum(map(len, e.encoded.windows)) for e in self.train_dataset]  # type: ignore[union-attr]
        generator = torch.Generator().manual_seed(self.args.seed)
        return LengthGroupedSampler(self.args.train_batch_size, lengths=lengths, generator=generator)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        logits = network_logits([e.encoded for e in self.held], run_torch(self.objective.model))
        score = average_precision_score([e.label for e in self.held], [s.deep for s in logits])
        metrics = {"eval_average_precision": float(score), "epoch": self.state.epoch or 0.0}
        logger.info("epoch %d: validation average precision %.4f", metrics["epoch"], score)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def finetune(
    model: BehaviourBert,
    encoder: Encoder,
    train: Sequence[Example],
    held: Sequence[Example],
    config: FitConfig,
    quiet: bool,
    epochs: int = 0,
) -> int:
    """Trains in place.

    Args:
        held: after each epoch the average precision is measured on these, and the best epoch's weights are kept.
        epochs: train for just so many and measure nothing; 0: until `held` says enough.

    Returns:
        The epochs whose weights are kept.
    """
    set_seed(config.seed)
    objective = Objective(model, config)
    encoder_weights = [p for n, p in model.bert.named_parameters() if "word_embeddings" not in n]
    known = {id(p) for p in encoder_weights}
    fresh = [p for p in model.parameters() if id(p) not in known]
    length = float(np.mean([sum(map(len, e.encoded.windows)) for e in train]))
    batch = int(np.clip(config.batch_tokens / length, 8, 16))
    per_epoch = -(-len(train) // batch)
    steps = per_epoch * (epochs or config.epochs)
    rate = config.pretrained_rate if PRESETS[config.preset].pretrained else config.scratch_rate
    optimizer = torch.optim.AdamW(
        [
            {"params": encoder_weights, "lr": rate},
            {"params": fresh, "lr": config.fresh_rate},
        ],
        weight_decay=0.01,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (0.1 * steps + 1), max(1 - step / steps, 0.0) / 0.9)
    )
    with TemporaryDirectory(prefix="recguard-fit-") as scratch:
        trainer = _Trainer(
            model=objective,
            args=TrainingArguments(
                output_dir=scratch,
                num_train_epochs=epochs or config.epochs,
                per_device_train_batch_size=batch,
                eval_strategy="no" if epochs else "epoch",
                save_strategy="no" if epochs else "epoch",
                save_total_limit=1,
                load_best_model_at_end=not epochs,
                metric_for_best_model="average_precision",
                seed=config.seed,
                use_cpu=not torch.cuda.is_available(),
                bf16=_bfloat16_pays(),
                remove_unused_columns=False,
                disable_tqdm=quiet,
                report_to=[],
                logging_strategy="no",
                dataloader_pin_memory=False,
            ),
            data_collator=Collator(encoder, config),
            train_dataset=list(train),
            eval_dataset=list(held),
            callbacks=[] if epochs else [EarlyStoppingCallback(early_stopping_patience=config.patience)],
            optimizers=(optimizer, schedule),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.objective, trainer.held = objective, list(held)
        trainer.train()
        best = trainer.state.best_global_step
    return epochs or round((best or steps) / per_epoch)


def fit_novelty(model: BehaviourBert, normal: Sequence[Encoded]) -> None:
    """Sets the model's idea of normal: mean and shrunk covariance of the windows' mean states of normal sequences.

    The novelty is then the squared Mahalanobis distance over its dimensions, after Lee et al., "A simple unified
    framework for detecting out-of-distribution samples and adversarial attacks", NeurIPS 2018; the shrinkage is Ledoit
    and Wolf's.
    """
    from sklearn.covariance import LedoitWolf

    windows = sorted((w for encoded in normal for w in encoded.windows), key=len)
    means = []
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(windows), 32):
            states, real = model.states(torch.from_numpy(pad(windows[start : start + 32])))
            means.append(model.mean_state(states, real).numpy())
    points = np.concatenate(means).astype(np.float64)
    covariance = LedoitWolf().fit(points).covariance_
    values, vectors = np.linalg.eigh(covariance)
    whitening = vectors / np.sqrt(np.maximum(values, 1e-8))
    model.normal_mean.copy_(torch.from_numpy(points.mean(axis=0)).float())
    model.normal_whitening.copy_(torch.from_numpy(whitening).float())
