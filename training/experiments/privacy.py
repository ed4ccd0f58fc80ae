"""What a bundle gives away: of whom it was fitted on, and of what hardly anybody holds."""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.model.bundle import Bundle
from training.config import FitConfig
from training.data.dataset import WHOLE, Dataset, files_fingerprint
from training.data.labels import Labels
from training.data.log import Log, LogError
from training.data.read import AS_FOUND, ReadOptions
from training.data.split import set_aside
from training.evaluation import privacy_pages
from training.experiments.membership import (
    FEWEST_TAKEN,
    by_loss,
    by_shadows,
    log_odds,
    of_one_mixture,
    shadows,
    success,
)
from training.experiments.naming import named

logger = logging.getLogger(__name__)


def privacy(
    bundle: Bundle,
    events: Path,
    label_file: Path,
    out: Path,
    others: Path | None = None,
    other_labels: Path | None = None,
    holders: int = 5,
    pairs: int = 4,
    columns: dict[str, str] | None = None,
    how: ReadOptions = AS_FOUND,
    advance: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Attacks a bundle, looks for what it names, and writes `privacy.json` and `privacy.html` into a folder.

    Args:
        others: further accounts; without `other_labels`, all count as genuine, and are compared with genuine ones.
        holders: accounts that must hold what may be named.
        pairs: pairs of shadow models; 0 leaves their attack out.

    Raises:
        LogError: the log is not the one that the bundle was fitted on, or nobody else is known.
    """
    _check_same(bundle, events, label_file)
    config = FitConfig(**bundle.manifest["config"])
    data = Dataset.read(events, label_file, config, columns, how=how)
    parts = set_aside(data.log, data.labels, data.training, config.seed, config.private)
    ours = np.concatenate((parts.others[data.labels.known[parts.others]], data.split.test))
    if others is not None and other_labels is None:
        ours = ours[data.labels.label[ours] == 0]  # or attackers of the test alone would stand for all
    asked, label = [(data.log.subset(ours), ours)], [data.labels.label[ours]]
    if others is not None:
        further, of_further = _further(bundle, others, other_labels, columns, how)
        asked.append((further, np.full(len(further), -1)))
        label.append(of_further.label)
    member = _members(bundle, asked, parts.others)
    truth = np.concatenate(label)
    surely = by_loss(np.concatenate([log_odds(bundle, log) for log, _ in asked]), truth)
    kept = of_one_mixture(truth, member)
    attacks = {"loss": success(surely[kept], member[kept])}
    if pairs:
        without = np.concatenate(shadows(data.log, data.labels, parts, asked, config, pairs, advance))
        told = by_shadows(surely, by_loss(without, truth[:, None]))
        attacks["shadow models"] = success(told[kept], member[kept])
    strangers = int((kept & ~member).sum())
    found = {
        "bundle": {"name": bundle.name, "version": bundle.version, "min_holders": config.min_holders},
        "members": int((kept & member).sum()),
        "strangers": strangers,
        "held_back": int((kept & ~member)[: len(ours)].sum()),
        "split": data.split.how,
        "least_rate": FEWEST_TAKEN / strangers,
        "rates": list(attacks["loss"]["found"]),
        "shadow_models": 2 * pairs,
        "attacks": attacks,
        "holders": holders,
        "named": named(bundle, data.log, parts.others, holders),
    }
    _write(out, found)
    return found


def _members(
    bundle: Bundle, asked: Sequence[tuple[Log, NDArray[np.integer]]], ours: NDArray[np.integer]
) -> NDArray[np.bool_]:
    """Which of all accounts that are asked of the bundle was fitted on; raises LogError if there are no others."""
    member = np.concatenate([np.isin(of, ours) for _, of in asked])
    if member.all():
        raise LogError(f"{bundle.path}: held nobody back for a test; name a log of further accounts with --others")
    return member


def _check_same(bundle: Bundle, events: Path, label_file: Path) -> None:
    """Raises LogError unless a bundle was fitted on these files; a private one does not tell which they were."""
    if bundle.manifest["training_data"]["fingerprint"] is None:
        logger.warning("a private bundle keeps no checksum of its log: make sure that it was fitted on %s", events)
        return
    if files_fingerprint(events, label_file) != bundle.manifest["training_data"]["fingerprint"]:
        raise LogError(
            f"{events}: not the log, or {label_file} not the labels, that {bundle.version} was fitted on; only these "
            "tell who was in its training"
        )


def _write(out: Path, found: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "privacy.json").write_text(json.dumps(found, indent=1))
    (out / "privacy.html").write_text(privacy_pages.render(found))


def _further(
    bundle: Bundle, events: Path, label_file: Path | None, columns: dict[str, str] | None, how: ReadOptions
) -> tuple[Log, Labels]:
    """The accounts of a further log that have a label, or all of them, as genuine, where there are no labels."""
    data = Dataset.read(events, label_file, WHOLE, columns, how=how, encoder=bundle.encoder)
    some = np.flatnonzero(data.labels.known) if label_file else np.arange(len(data.log))
    return data.log.subset(some), data.labels.subset(some)
