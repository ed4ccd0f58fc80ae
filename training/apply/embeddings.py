"""Vectors of texts, images and sounds, by a local model that transformers loads.

The different values of a column are embedded once each, a batch at a time. Each batch is a file until all are there, so
that an interrupted run goes on behind the last one.
"""

import hashlib
import json
import shutil
import wave
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoModel, AutoTokenizer

from service.encoding.reading import Reading
from service.model.files import write_json, write_whole
from training.data.log import LogError

Kind = Literal["text", "image", "sound"]
Embed = Callable[[Sequence[str]], NDArray[np.float32]]
BATCH = 64  # values of one file
MOST_PIECES = 256  # of a text, where the model takes more; sentence models are trained on as many


def embed_column(
    table: pl.DataFrame,
    column: str,
    model: Path,
    out: Path,
    kind: Kind,
    into: str,
    root: Path,
    reading: Reading,
    done: Callable[[str], None],
) -> pl.DataFrame:
    """The table with a column of vectors, null where the value is missing; raises LogError where one cannot be read.

    Args:
        table: the log.
        model: the model's directory.
        out: beside it, `out.parts` holds what is done until all is.
        into: name of the new column.
        root: where paths that are not absolute begin.
        reading: which texts stand for a missing value.
        done: hears of each batch.
    """
    values = values_of(table, column, reading)
    parts = _begun(out, values, model, kind)
    embed: Embed | None = None
    for start in range(0, len(values), BATCH):
        file = parts / f"{start:09d}.npy"
        if not file.exists():
            embed = embed or embedder(model, kind, root)
            write_whole(file, partial(_write, embed(values[start : start + BATCH])))
        done(f"{min(start + BATCH, len(values)):,} of {len(values):,}")
    vectors = [vector for file in sorted(parts.glob("*.npy")) for vector in np.load(file, allow_pickle=False).tolist()]
    of = dict(zip(values, vectors, strict=True))
    rows = [of.get(str(value)) for value in table[column].to_list()]
    return table.with_columns(pl.Series(into, rows, dtype=pl.List(pl.Float32)))


def values_of(table: pl.DataFrame, column: str, reading: Reading) -> list[str]:
    """The different values of a column, as texts, without those that stand for a missing one."""
    given = table[column].unique(maintain_order=True).to_list()
    return [str(value) for value in given if not reading.is_missing(value)]


def _write(vectors: NDArray[np.float32], path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, vectors, allow_pickle=False)


def parts_of(out: Path) -> Path:
    """The folder of what is done, until all is."""
    return out.with_name(out.name + ".parts")


def _begun(out: Path, values: Sequence[str], model: Path, kind: Kind) -> Path:
    """The folder of what is done of the same work; one of other values or another model is begun anew."""
    parts = parts_of(out)
    told = hashlib.sha256(json.dumps([values, kind]).encode())
    for file in sorted(model.rglob("*.json")) + sorted(model.rglob("*.safetensors")):
        told.update(f"{file.relative_to(model)} {file.stat().st_size} {file.stat().st_mtime_ns}".encode())
    plan = {"work": told.hexdigest()}
    note = parts / "plan.json"
    if not note.exists() or json.loads(note.read_text()) != plan:
        shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir(parents=True)
        write_json(note, plan)
    return parts


def embedder(model: Path, kind: Kind, root: Path) -> Embed:
    """What embeds values of a kind; raises LogError where the directory holds no model for it."""
    try:
        network = AutoModel.from_pretrained(model, local_files_only=True).eval()
        if kind == "text":
            tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
            return partial(_texts, network, tokenizer)
        if kind == "image":
            images = _loaded(AutoImageProcessor, model)
            return partial(_images, network, images, root)
        sounds = _loaded(AutoFeatureExtractor, model)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise LogError(f"{model}: holds no model for --kind {kind} that transformers loads: {error}") from error
    return partial(_sounds, network, sounds, root)


def _loaded(processor: Any, model: Path) -> Any:
    return processor.from_pretrained(model, local_files_only=True)


def _mean(states: torch.Tensor, mask: torch.Tensor | None = None) -> NDArray[np.float32]:
    """Float32 (N, D): the mean of the states (N, T, D), of which the mask (N, T) tells those that count."""
    weight = torch.ones(states.shape[:2]) if mask is None else mask
    weight = weight[:, :, None].to(states.dtype)
    found: NDArray[np.float32] = ((states * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)).float().numpy()
    return found


def _features(found: Any) -> NDArray[np.float32]:
    """What CLIP's projections give, as a tensor or within an output."""
    vectors: NDArray[np.float32] = getattr(found, "pooler_output", found).float().numpy()
    return vectors


@torch.no_grad()
def _texts(network: Any, tokenizer: Any, values: Sequence[str]) -> NDArray[np.float32]:
    most = min(tokenizer.model_max_length, getattr(network.config, "max_position_embeddings", MOST_PIECES), MOST_PIECES)
    if hasattr(network, "get_text_features"):
        most = min(most, network.config.text_config.max_position_embeddings)
        given = tokenizer(list(values), padding=True, truncation=True, max_length=most, return_tensors="pt")
        return _features(network.get_text_features(**given))
    given = tokenizer(list(values), padding=True, truncation=True, max_length=most, return_tensors="pt")
    return _mean(network(**given).last_hidden_state, given["attention_mask"])


@torch.no_grad()
def _images(network: Any, processor: Any, root: Path, values: Sequence[str]) -> NDArray[np.float32]:
    given = processor(images=[_image(root / value) for value in values], return_tensors="pt")
    if hasattr(network, "get_image_features"):
        return _features(network.get_image_features(**given))
    return _mean(network(**given).last_hidden_state)


def _image(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise LogError(f"{path}: cannot be read as an image: {error}") from error


@torch.no_grad()
def _sounds(network: Any, extractor: Any, root: Path, values: Sequence[str]) -> NDArray[np.float32]:
    """One sound at a time, as what fills up a shorter one would change its vector."""
    rate, found = int(extractor.sampling_rate), []
    for value in values:
        given = extractor(_sound(root / value, rate), sampling_rate=rate, return_tensors="pt")
        found.append(_mean(network(given["input_values"]).last_hidden_state))
    return np.concatenate(found)


def _sound(path: Path, rate: int) -> NDArray[np.float32]:
    """Float32 (T,) in -1 to 1, all channels as one, at a rate in Hz."""
    try:
        with wave.open(str(path), "rb") as file:
            width, channels, own = file.getsampwidth(), file.getnchannels(), file.getframerate()
            packed = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise LogError(f"{path}: cannot be read as a sound: {error}; write it as a .wav of 16 bits") from error
    if width != 2 or not packed:
        raise LogError(f"{path}: a .wav of 16 bits with some samples is needed; it has {8 * width} bits; write it so")
    samples = np.frombuffer(packed, dtype="<i2").reshape(-1, channels).mean(axis=1) / 32768
    at = np.arange(0, len(samples), own / rate)
    resampled: NDArray[np.float32] = np.interp(at, np.arange(len(samples)), samples).astype(np.float32)
    return resampled
