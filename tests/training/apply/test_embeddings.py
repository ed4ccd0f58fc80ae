"""Columns of texts, images and sounds made into vectors by local models."""

import signal
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
)

from tests.support.processes import wait_until
from tests.support.training import command, refused
from training.apply.embeddings import BATCH, parts_of
from training.config import pretrained_directory

SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}


def log_of(path: Path, values: list[str | None]) -> Path:
    pl.DataFrame({"sequence_id": [f"s{i}" for i in range(len(values))], "what": values}).write_csv(path)
    return path


def vectors(path: Path, name: str = "what_vector") -> list[list[float] | None]:
    found: list[list[float] | None] = pl.read_parquet(path)[name].to_list()
    return found


def test_texts_that_say_the_same_are_near_and_the_same_text_has_the_same_vector(tmp_path: Path) -> None:
    texts = ["the dog barks at the cat", "stocks fell on friday", None, "the dog barks at the cat", "a barking dog"]
    texts += [" N/A ", "none", "  "]
    log, out = log_of(tmp_path / "e.csv", texts), tmp_path / "e.parquet"
    told = command("embed", "--events", log, "--column", "what", "--model", pretrained_directory(None), "--out", out)
    assert "8 rows with what_vector" in told
    found = vectors(out)
    assert [k for k, vector in enumerate(found) if vector is None] == [2, 5, 6, 7]
    assert found[0] == found[3]
    dog, stocks, barking = (np.array(found[k]) / np.linalg.norm(np.array(found[k])) for k in (0, 1, 4))
    assert len(dog) == 384
    assert dog @ barking > 0.6 > 0.3 > dog @ stocks
    assert not parts_of(out).exists()


def test_images_and_sounds(tmp_path: Path) -> None:
    vision = {**SMALL, "image_size": 8, "patch_size": 4}
    text = {
        **SMALL,
        "vocab_size": 9,
        "max_position_embeddings": 4,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)).save_pretrained(tmp_path / "clip")
    CLIPImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}).save_pretrained(
        tmp_path / "clip"
    )
    for name, colour in (("red.png", (255, 0, 0)), ("blue.png", (0, 0, 255))):
        Image.new("RGB", (9, 12), colour).save(tmp_path / name)
    log = log_of(tmp_path / "e.csv", ["red.png", "blue.png", "red.png"])
    asked = ["embed", "--events", log, "--column", "what"]
    command(*asked, "--model", tmp_path / "clip", "--out", tmp_path / "i.parquet", "--kind", "image", "--into", "v")
    red, blue, again = vectors(tmp_path / "i.parquet", "v")
    assert red is not None
    assert len(red) == 6
    assert red == again != blue
    wav = Wav2Vec2Config(**SMALL, conv_dim=(8, 8), conv_stride=(5, 4), conv_kernel=(10, 8), num_conv_pos_embeddings=4,
                         num_conv_pos_embedding_groups=2, num_feat_extract_layers=2)  # fmt: skip
    Wav2Vec2Model(wav).save_pretrained(tmp_path / "wav")
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "wav")
    for name, pitch in (("low.wav", 200), ("high.wav", 900)):
        with wave.open(str(tmp_path / name), "wb") as file:
            file.setparams((2, 2, 8000, 0, "NONE", ""))
            tone = (9000 * np.sin(np.arange(4000) / 8000 * 2 * np.pi * pitch)).astype("<i2")
            file.writeframes(np.repeat(tone, 2).tobytes())
    log_of(tmp_path / "e.csv", ["low.wav", "high.wav"])
    command(*asked, "--model", tmp_path / "wav", "--out", tmp_path / "s.parquet", "--kind", "sound")
    low, high = vectors(tmp_path / "s.parquet")
    assert low is not None
    assert len(low) == 16
    assert low != high
    (tmp_path / "high.wav").write_bytes(b"no sound")
    said = refused(*asked, "--model", tmp_path / "wav", "--out", tmp_path / "s.parquet", "--kind", "sound")
    assert "high.wav: cannot be read as a sound" in said
    assert "red.png: cannot be read as an image" in (
        (tmp_path / "red.png").write_bytes(b"no image") and log_of(tmp_path / "e.csv", ["red.png"])
        and refused(*asked, "--model", tmp_path / "clip", "--out", tmp_path / "j.parquet", "--kind", "image")
    )  # fmt: skip


def test_what_is_asked_for_wrongly_is_refused(tmp_path: Path) -> None:
    log, model = log_of(tmp_path / "e.csv", ["a", "b"]), pretrained_directory(None)
    asked = ["embed", "--events", log, "--out", tmp_path / "e.parquet"]
    assert "no column 'note'" in refused(*asked, "--column", "note", "--model", model)
    assert "has a column 'what' already" in refused(*asked, "--column", "what", "--model", model, "--into", "what")
    assert "no such directory" in refused(*asked, "--column", "what", "--model", tmp_path / "none")
    assert "holds no model" in refused(*asked, "--column", "what", "--model", tmp_path)
    assert "written as Parquet" in refused(*asked[:-1], tmp_path / "e.csv", "--column", "what", "--model", model)


@pytest.mark.parametrize("other", [False, True])
def test_it_goes_on_after_a_kill_and_begins_anew_with_other_values(tmp_path: Path, other: bool) -> None:
    texts: list[str | None] = [f"text number {i}" for i in range(4 * BATCH)]
    log, out = log_of(tmp_path / "e.csv", texts), tmp_path / "e.parquet"
    asked = [
        "embed",
        "--events",
        log,
        "--column",
        "what",
        "--model",
        pretrained_directory(None),
        "--out",
        out,
        "--quiet",
    ]
    process = subprocess.Popen([sys.executable, "-m", "training.cli", *map(str, asked)])
    wait_until(lambda: len(list(parts_of(out).glob("*.npy"))) > 0 or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = min(parts_of(out).glob("*.npy"))
    before = first.stat().st_mtime_ns
    marked = np.load(first) * 0
    with first.open("wb") as file:
        np.save(file, marked)  # what was done is not done again
    assert before
    if other:
        log_of(log, [*texts[:-1], "another text"])
    command(*asked)
    found = vectors(out)
    assert len(found) == len(texts)
    assert None not in found
    zero = [not np.any(vector) for vector in found if vector is not None]
    assert zero == [not other] * BATCH + [False] * (3 * BATCH)
