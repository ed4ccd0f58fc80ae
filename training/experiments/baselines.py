"""The methods that our model is compared with: classic models on hand-made features, and other networks.

Each is a function of training log, labels and configuration that returns a `Detector`. All see the same columns as our
model. As for ours, the threshold has the best F1 on scores of sequences that the method was not fitted on. A method
without labels takes it from the scores of its own training part.
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import torch
from sklearn.base import clone
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import VarianceThreshold
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torch import Tensor, nn

from service.encoding.chunks import pad
from service.encoding.encoder import Encoded, Encoder
from service.encoding.values import Floats, Ids
from service.engine.outputs import Outputs
from service.engine.session import Engine, Runtime
from service.model.scorer import evidence, network_logits
from training.config import PRESETS, FitConfig
from training.data.labels import Labels
from training.data.log import Log
from training.data.split import held_out
from training.experiments.aggregates import Aggregates
from training.fit.codebooks import kinds_for_vectors
from training.fit.encoder import fit_encoder
from training.fit.networks import untrained
from training.fit.pieces import tokenizer_for
from training.fit.pipeline import fit_model
from training.fit.sequences import encoded_log, examples_of
from training.fit.thresholds import best_f1
from training.network import export
from training.network.finetune import Shown, finetune, run_torch
from training.network.model import BehaviourBert

COMPONENTS = 32  # of the decomposition that dense methods see
FEW = 20  # values up to which a number counts as a word


@dataclass(frozen=True)
class Detector:
    """A fitted method: scores for a log's sequences, larger is more anomalous, and the score from which it flags."""

    scores: Callable[[Log], Floats]
    threshold: float


Method = Callable[[Log, Labels, FitConfig], Detector]


def naming_vectors(method: Method) -> Method:
    """The method, which then reads each vector as the name of those that are like it, for it cannot read vectors."""

    def named(log: Log, labels: Labels, config: FitConfig) -> Detector:
        read = kinds_for_vectors(log)
        found = method(read(log), labels, config)
        return Detector(lambda other: found.scores(read(other)), found.threshold)

    return named


class Words:
    """A sequence as a bag of words: its events' values, texts as words and pairs of words, and gaps in time.

    Args:
        log: the training part.
        recipe: "events" makes one word of all values of an event (`item_rating` on a log of items and ratings),
            "values" one of each, "both" does both.
    """

    def __init__(self, log: Log, recipe: str = "both") -> None:
        self.recipe, self.kinds = recipe, log.kinds
        self.edges = {
            name: np.unique(np.nanquantile(log.events[name].cast(pl.Float64).to_numpy(), np.linspace(0, 1, 11)[1:-1]))
            for name, kind in self.kinds.items()
            if kind == "numeric" and log.events[name].n_unique() > FEW
        }

    def __call__(self, log: Log) -> list[list[str]]:
        return [self._sequence(columns, length) for columns, length in log.sequences()]

    def _sequence(self, columns: Mapping[str, Sequence[Any]], length: int) -> list[str]:
        words = []
        for name, kind in self.kinds.items():
            if kind == "text":
                for text in columns.get(name, ()):
                    tokens = re.findall(r"\w+", str(text or "").lower())
                    words += [*tokens, *(f"{a} {b}" for a, b in itertools.pairwise(tokens))]
        named = [name for name, kind in self.kinds.items() if kind != "text" and name in columns]
        values = [[self._word(name, value) for value in columns[name]] for name in named]
        if self.recipe != "events":
            for name, of_column in zip(named, values, strict=True):
                words += [f"{name}={value}" for value in of_column]
        if self.recipe != "values" and named:
            words += ["|".join(event) for event in zip(*values, strict=True)]
        times = np.array([np.nan if t is None else t for t in columns.get("ts", [None] * length)], dtype=np.float64)
        gaps = np.diff(times[~np.isnan(times)])
        return [*words, *(f"gap={int(np.log2(abs(gap) + 1))}" for gap in gaps)]

    def _word(self, name: str, value: Any) -> str:
        if value is not None and name in self.edges:
            return str(int(np.searchsorted(self.edges[name], float(value))))
        return str(value)


def statistics(words: Sequence[Sequence[str]]) -> Floats:
    """Float64 (N, 4): log of the words, share that differ, share of the most frequent, and their entropy."""
    rows = []
    for of_sequence in words:
        counts = np.unique(list(of_sequence), return_counts=True)[1] if of_sequence else np.ones(1)
        share = counts / counts.sum()
        rows.append((np.log(counts.sum()), len(counts) / counts.sum(), share.max(), -(share * np.log(share)).sum()))
    return np.array(rows)


def _tf_idf() -> Any:
    return TfidfVectorizer(analyzer=_as_it_is, min_df=1)


def _as_it_is(words: list[str]) -> list[str]:
    return words


def _dense() -> Any:
    """Dense features of bags of words: a decomposition of TF-IDF beside the statistics, standardised."""
    decomposed = make_pipeline(_tf_idf(), TruncatedSVD(COMPONENTS, random_state=0))
    return make_pipeline(make_union(decomposed, FunctionTransformer(statistics)), StandardScaler())


def supervised(estimator: Any, log: Log, labels: Labels, config: FitConfig) -> Detector:
    """A classifier on TF-IDF; recipe of the words and threshold are chosen on cross-validated scores."""
    y, model = labels.label, make_pipeline(_tf_idf(), clone(estimator))
    tried = []
    for recipe in ("events", "values", "both"):
        words = Words(log, recipe)
        crossed = cross_val_predict(model, words(log), y, cv=3, method="predict_proba")[:, 1]
        tried.append((average_precision_score(y, crossed), recipe, crossed))
    _, recipe, crossed = max(tried, key=lambda t: float(t[0]))
    words = Words(log, recipe)
    model.fit(words(log), y)
    return Detector(lambda other: model.predict_proba(words(other))[:, 1], best_f1(y, crossed))


@naming_vectors
def boosting(log: Log, labels: Labels, config: FitConfig) -> Detector:
    """Boosted trees on hand-made aggregates, which is what is usually tried first; it learns from labels alone."""
    aggregates, y = Aggregates(log), labels.label
    points, trees = aggregates(log), HistGradientBoostingClassifier(max_features=0.3, random_state=config.seed)
    model = make_pipeline(VarianceThreshold(), trees)  # most buckets of a column of few values are empty
    crossed = cross_val_predict(model, points, y, cv=3, method="predict_proba")[:, 1]
    model.fit(points, y)
    return Detector(lambda other: model.predict_proba(aggregates(other))[:, 1], best_f1(y, crossed))


def unsupervised(name: str, log: Log, labels: Labels, config: FitConfig) -> Detector:
    """A detector of pyod on dense features; of the labels it is told only the share of anomalies."""
    words = Words(log)
    bags = words(log)
    features = _dense().fit(bags)
    points = features.transform(bags)
    torch.manual_seed(config.seed)
    with redirect_stdout(StringIO()):  # some print their epochs
        model = _pyod(name, min(float(labels.label.mean()), 0.5), config.seed).fit(points)
    return Detector(
        lambda other: np.asarray(model.decision_function(features.transform(words(other)))),
        best_f1(labels.label, np.asarray(model.decision_scores_)),
    )


def _pyod(name: str, contamination: float, seed: int) -> Any:
    if name == "isolation forest":
        from pyod.models.iforest import IForest

        return IForest(contamination=contamination, random_state=seed)
    if name == "LOF":
        from pyod.models.lof import LOF

        return LOF(contamination=contamination)
    if name == "CBLOF":
        from pyod.models.cblof import CBLOF

        return CBLOF(contamination=contamination, random_state=seed)
    if name == "autoencoder":
        from pyod.models.auto_encoder import AutoEncoder

        return AutoEncoder(contamination=contamination, random_state=seed, epoch_num=30, verbose=0)
    if name == "VAE":
        from pyod.models.vae import VAE

        return VAE(contamination=contamination, random_state=seed, verbose=0)
    from pyod.models.so_gaal import SO_GAAL

    return SO_GAAL(contamination=contamination)


class _Body(nn.Module):
    """Stands where BERT stands in the network: a GRU or convolutions over the events' summed embeddings."""

    def __init__(self, kind: str, rows: int, width: int) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict({"word_embeddings": nn.Embedding(rows, width, padding_idx=0)})
        self.config = SimpleNamespace(max_position_embeddings=0)
        if kind == "GRU":
            self.layers: nn.Module = nn.GRU(width, width // 2, num_layers=2, batch_first=True, bidirectional=True)
        else:
            convolutions = [nn.Sequential(nn.Conv1d(width, width, 5, padding=2), nn.GELU()) for _ in range(3)]
            self.layers = nn.Sequential(*convolutions)
        self.recurrent = kind == "GRU"

    def forward(self, inputs_embeds: Tensor, attention_mask: Tensor) -> Any:
        values = inputs_embeds * attention_mask.unsqueeze(-1)
        states = self.layers(values)[0] if self.recurrent else self.layers(values.transpose(1, 2)).transpose(1, 2)
        return SimpleNamespace(last_hidden_state=states)


def network(kind: str, log: Log, labels: Labels, config: FitConfig) -> Detector:
    """A network alone, without linear part and novelty; a held-out part decides when to stop, and the threshold.

    Args:
        kind: "GRU" or "CNN", over the same events as ours; "words" is BERT over each event described in words.
    """
    read = described if kind == "words" else _as_read
    config = replace(config, preset="base" if kind == "words" else "tiny").settled
    encoder = _encoder(read(log), config)
    encoded = encoded_log(encoder, read(log))
    examples = examples_of(read(log), labels, encoded, [])
    model = untrained(encoder, encoded, 0, config)
    if kind != "words":
        body: Any = _Body(kind, encoder.deep_rows, PRESETS[config.preset].hidden)
        body.config.max_position_embeddings = config.max_positions
        model.bert = body
    [(others, held)] = held_out(labels, 1, config.held_out_share, config.seed)
    ours, theirs = ([examples[i] for i in part.tolist()] for part in (others, held))
    finetune(model, encoder, Shown.all(ours), theirs, config, True, "baseline")
    run = run_torch(model)

    def scores(sequences: Sequence[Encoded]) -> Floats:
        return network_logits(sequences, run).sequence

    return Detector(
        lambda other: scores(encoded_log(encoder, read(other))),
        best_f1(labels.label[held], scores([e.encoded for e in theirs])),
    )


@naming_vectors
def embedding(log: Log, labels: Labels, config: FitConfig) -> Detector:
    """An isolation forest on the mean state of pretrained BERT, not fine-tuned, for the events put into words."""
    config = replace(config, preset="base").settled
    encoder = _encoder(described(log), config)
    sequences = encoded_log(encoder, described(log))
    model = untrained(encoder, sequences, 0, config)
    model.eval()

    def points(sequences: Sequence[Encoded]) -> Floats:
        found = []
        with torch.inference_mode():
            for encoded in sequences:
                states, real = model.states(torch.from_numpy(pad(encoded.chunks[: config.train_chunks])))
                found.append(model.mean_state(states, real).mean(dim=0).numpy())
        return np.stack(found).astype(np.float64)

    of_training = points(sequences)
    forest = IsolationForest(random_state=config.seed).fit(of_training)
    return Detector(
        lambda other: -forest.score_samples(points(encoded_log(encoder, described(other)))),
        best_f1(labels.label, -forest.score_samples(of_training)),
    )


def described(log: Log) -> Log:
    """The same sequences with each event put into words, `name value, name value`."""
    parts = [
        pl.col(name).cast(pl.String).fill_null("unknown")
        if kind == "text"
        else pl.concat_str(pl.lit(f"{name.removesuffix('_id')} "), pl.col(name).cast(pl.String).fill_null("unknown"))
        for name, kind in log.kinds.items()
    ]
    text = pl.concat_str(parts, separator=", ").alias("text")
    time = pl.lit(None, dtype=pl.Float64).alias("ts")
    return Log.of(log.events.select("sequence_id", time, text))


def _as_read(log: Log) -> Log:
    return log


def _encoder(log: Log, config: FitConfig) -> Encoder:
    return fit_encoder(log, tokenizer_for(log, config.pretrained), config.max_positions)


def ours(changes: Mapping[str, Any], log: Log, labels: Labels, config: FitConfig) -> Detector:
    """Our own model with some settings changed, served as the service would: ONNX Runtime on one thread."""
    fitted = fit_model(log, labels, np.arange(len(log)), replace(config, **changes))
    run = on_one_core(fitted.model, fitted.encoder)
    return Detector(
        lambda other: fitted.calibration.score(evidence(fitted.encode(other), run, fitted.tabular)),
        fitted.f1_threshold,
    )


def on_one_core(model: BehaviourBert, encoder: Encoder) -> Callable[[Ids], Outputs]:
    """The network as the service runs it: ONNX Runtime on one thread."""
    with TemporaryDirectory(prefix="recguard-compare-") as folder:
        path = Path(folder) / "model.onnx"
        export.export_onnx(model, encoder.deep_slots, path)
        return Engine(path, Runtime(threads=1)).run


BOOSTING = "aggregates + gradient boosting"
METHODS: dict[str, Method] = {
    "ours, default": partial(ours, {}),
    "ours, small": partial(ours, {"preset": "small"}),
    "ours, base": partial(ours, {"preset": "base"}),
    "ours, base from scratch": partial(ours, {"preset": "base", "from_scratch": True}),
    "ours, masked-event pretraining": partial(ours, {"pretrain_epochs": 5}),
    "TF-IDF + logistic regression": naming_vectors(partial(supervised, LogisticRegression(C=10, max_iter=2000))),
    "TF-IDF + random forest": naming_vectors(partial(supervised, RandomForestClassifier(300, random_state=0))),
    BOOSTING: boosting,
    "1-D CNN": partial(network, "CNN"),
    "GRU": partial(network, "GRU"),
    "BERT on words": naming_vectors(partial(network, "words")),
    "BERT embedding + isolation forest": embedding,
    **{
        name: naming_vectors(partial(unsupervised, name))
        for name in ("isolation forest", "LOF", "CBLOF", "autoencoder", "VAE", "SO-GAAL")
    },
}
OURS = "ours, default"
