"""The bundle: a directory that holds a model and all that is needed to score with it, and proves that it is whole.

manifest.json       name, version, schema version, feature spec, metrics, thresholds, calibration, checksums
encoder.json        fields with their vocabularies and bins; tokenizer.json beside it where there is text
codebooks.npz       optional: what vectors are read with
model.onnx          and its variants, model.int8.onnx for the CPU and model.fp16.onnx for a GPU
statistics.npz      novelty, linear part, straying, shape and guilt by association
ordinary.npz        what genuine histories have, with which reasons compare
promise.npz         thresholds by false-alarm rate, length and what is missing, and what attackers score
crowd.npz           optional: how common identifiers are among training's accounts, against which a crowd is measured
together.npz        beside it: as promise.npz, for sequences that are judged with the crowd
golden.jsonl        inputs with the scores they must give
manifest.sig        optional: an Ed25519 signature of manifest.json
evaluation.json, report.html
"""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from service.encoding import vectors
from service.encoding.encoder import Encoder
from service.encoding.vectors import Codebook
from service.engine.remote import AnyEngine, open_engine
from service.engine.session import CPU, GraphError, Runtime
from service.model.calibration import Calibration
from service.model.cascade import Cascade
from service.model.drift import FieldValues
from service.model.false_alarms import RATES, FalseAlarms
from service.model.lengths import LEAST
from service.model.ordinary import Ordinary
from service.model.policy import Thresholds
from service.model.support import Support
from service.model.tabular import Tabular
from service.model.togetherness import Usual

SCHEMA_VERSION = 11
CODEBOOKS = "codebooks.npz"
VARIANTS = {"fp32": "model.onnx", "int8": "model.int8.onnx", "fp16": "model.fp16.onnx"}


class BundleError(ValueError):
    """A bundle that must not serve; the message names the file and what is wrong with it."""


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_signature(path: Path, manifest: bytes, public_key: Path) -> None:
    """Raises BundleError unless manifest.sig is an Ed25519 signature by the key's owner; it vouches for all."""
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError as error:
        raise BundleError(
            "RECGUARD_BUNDLE_PUBLIC_KEY needs the extra signed: pip install 'recguard[signed]'"
        ) from error
    try:
        key = load_pem_public_key(public_key.read_bytes())
    except ValueError as error:
        raise BundleError(f"{public_key}: no PEM file of a public key: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise BundleError(f"{public_key}: not an Ed25519 key")
    signature = path / "manifest.sig"
    try:
        key.verify(signature.read_bytes(), manifest)
    except FileNotFoundError:
        raise BundleError(f"{path}: no manifest.sig, and only signed bundles are served") from None
    except InvalidSignature:
        raise BundleError(f"{signature}: not the signature of this manifest by the owner of {public_key}") from None


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: its files are those the manifest was written for.

    Attributes:
        path: its directory.
        manifest: the content of manifest.json.
    """

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: Path, public_key: Path | None = None) -> "Bundle":
        """Reads the manifest and verifies schema version, checksums and, if a public key is given, its signature.

        Raises:
            BundleError: missing or damaged files, a schema version that this release does not read, or no valid
                signature by the owner of the key.
            OSError: the key cannot be read.
        """
        if not path.is_dir():
            raise BundleError(f"{path}: no such bundle directory")
        manifest_path = path / "manifest.json"
        try:
            content = manifest_path.read_bytes()
            manifest = json.loads(content)
            version, files = manifest["schema_version"], manifest["files"]
        except FileNotFoundError:
            raise BundleError(f"{path}: no manifest.json, so this is no bundle") from None
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{manifest_path}: damaged: {error}") from error
        if public_key is not None:
            _check_signature(path, content, public_key)
        if version != SCHEMA_VERSION:
            newer = isinstance(version, int) and version > SCHEMA_VERSION
            fix = "upgrade recguard" if newer else "fit it again with `recguard-train fit`"
            raise BundleError(f"{path}: schema version {version}, this release reads {SCHEMA_VERSION}; {fix}")
        for name, expected in files.items():
            file = path / name
            if file.parent != path or not file.is_file():
                raise BundleError(f"{file}: missing from the bundle")
            if sha256(file) != expected:
                raise BundleError(f"{file}: damaged, its SHA-256 is not the manifest's")
        needed = {
            "encoder.json",
            "model.onnx",
            "statistics.npz",
            "ordinary.npz",
            "promise.npz",
            "golden.jsonl",
        } - files.keys()
        if needed:
            raise BundleError(f"{path}: the manifest lists no {', '.join(sorted(needed))}")
        return cls(path, manifest)

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def version(self) -> str:
        return str(self.manifest["version"])

    @property
    def types(self) -> list[str]:
        """The anomaly types, in the order of the graph's type logits; empty where training had none."""
        return list(self.manifest["types"])

    @cached_property
    def partial_types(self) -> frozenset[str]:
        """Types most of whose sequences are anomalous only in part."""
        return self.calibration.partial_types(self.types)

    @cached_property
    def encoder(self) -> Encoder:
        tokenizer = (
            Tokenizer.from_file(str(self.path / "tokenizer.json"))
            if "tokenizer.json" in self.manifest["files"]
            else None
        )
        return Encoder.from_json(json.loads((self.path / "encoder.json").read_text()), tokenizer, self._codebooks)

    @cached_property
    def _codebooks(self) -> dict[str, Codebook]:
        """What vectors are read with, by their columns."""
        if CODEBOOKS not in self.manifest["files"]:
            return {}
        path = self.path / CODEBOOKS
        try:
            return vectors.load(path)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise BundleError(f"{path}: cannot be read: {error}") from error

    @cached_property
    def tabular(self) -> Tabular:
        path = self.path / "statistics.npz"
        try:
            tabular = Tabular.load(path)
        except (ValueError, KeyError, OSError) as error:
            raise BundleError(f"{path}: cannot be read: {error}") from error
        if len(tabular.linear.idf) != self.encoder.rows:
            raise BundleError(f"{path}: made for {len(tabular.linear.idf)} rows, the encoder has {self.encoder.rows}")
        return tabular

    @cached_property
    def ordinary(self) -> Ordinary:
        """What genuine histories have."""
        path = self.path / "ordinary.npz"
        try:
            ordinary = Ordinary.load(path)
        except (ValueError, KeyError, OSError) as error:
            raise BundleError(f"{path}: cannot be read: {error}") from error
        shapes = (self.encoder.rows,), (len(LEAST), len(self.encoder.vocabularies))
        if (ordinary.share.shape, ordinary.leader.shape) != shapes:
            raise BundleError(f"{path}: made for other rows or columns than those of the encoder")
        return ordinary

    @cached_property
    def field_values(self) -> FieldValues:
        """What the fields' values were in training."""
        return FieldValues.of(self.encoder, self.manifest["field_values"])

    @cached_property
    def calibration(self) -> Calibration:
        return Calibration.from_json(self.manifest["calibration"])

    @cached_property
    def cascade(self) -> Cascade | None:
        """How far the network can move a score; None in bundles of before there were bounds on it."""
        found = self.manifest.get("cascade")
        return None if found is None else Cascade.from_json(found)

    @cached_property
    def support(self) -> Support:
        """What attackers score, and with it what genuine accounts do, each judged alone."""
        return self._support("promise.npz")

    @cached_property
    def usual(self) -> Usual | None:
        """How common identifiers are; None if sequences are only judged alone."""
        if "crowd.npz" not in self.manifest["files"]:
            return None
        path = self.path / "crowd.npz"
        try:
            return Usual.load(path)
        except (ValueError, KeyError, OSError) as error:
            raise BundleError(f"{path}: cannot be read: {error}") from error

    @cached_property
    def together(self) -> Support | None:
        """As `support`, judged with the crowd; None if sequences are only judged alone."""
        return None if self.usual is None else self._support("together.npz")

    def support_of(self, together: bool) -> Support:
        """The one that holds for a sequence that was judged with the crowd, or alone."""
        return (self.together if together else None) or self.support

    def _support(self, name: str) -> Support:
        path = self.path / name
        try:
            found = Support.load(path)
        except (ValueError, KeyError, OSError) as error:
            raise BundleError(f"{path}: cannot be read: {error}") from error
        if found.false_alarms.thresholds.shape != (len(self.encoder.read) + 2, len(LEAST), len(RATES)):
            raise BundleError(f"{path}: made for other columns, lengths or rates than those of this bundle")
        return found

    @property
    def false_alarms(self) -> FalseAlarms:
        """What the scores of genuine accounts are, each judged alone."""
        return self.support.false_alarms

    @cached_property
    def thresholds(self) -> Thresholds:
        return Thresholds(**self.manifest["thresholds"])

    def engine(self, runtime: Runtime = CPU, precision: str | None = None) -> AnyEngine:
        """A session on the variant that export chose for the provider, or on the one of the given precision."""
        variants = self.manifest["variants"]
        chosen = precision or (variants["cpu"] if runtime.requested == "cpu" else variants["cuda"])
        engine = self._session(chosen, runtime)
        if precision is None and engine.provider == "cpu" and chosen != variants["cpu"]:
            engine = self._session(variants["cpu"], replace(runtime, requested="cpu"))  # auto found no CUDA
        return engine

    def _session(self, precision: str, runtime: Runtime) -> AnyEngine:
        file = VARIANTS.get(precision, precision)
        if file not in self.manifest["files"]:
            raise BundleError(f"{self.path}: it holds no {precision} variant")
        try:
            engine = open_engine(self.path / file, runtime, self.encoder.max_positions)
        except GraphError as error:
            raise BundleError(str(error)) from error
        if engine.slots != self.encoder.deep_slots or engine.types != max(len(self.types), 1):
            raise BundleError(
                f"{self.path / file}: takes {engine.slots} slots and gives {engine.types} types; "
                f"encoder and manifest say {self.encoder.deep_slots} and {max(len(self.types), 1)}"
            )
        return engine

    def golden(self) -> list[dict[str, Any]]:
        """The golden samples: `events`, and by precision the expected `score` and `events`, with a `tolerance`."""
        return [json.loads(line) for line in (self.path / "golden.jsonl").read_text().splitlines()]
