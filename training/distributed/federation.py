"""Joins sites that fit one model and share no logs: what each sends, and what the server in the middle makes of it.

Sums are masked: each two sites agree on a secret (X25519), from which one adds and the other takes away the same stream
of random numbers, so that the server sees noise and the sum alone is true (Bonawitz et al., "Practical secure
aggregation for privacy-preserving machine learning", CCS 2017). Numbers are of fixed point, modulo 2^64. Where a site
is gone, the others send the same once more, with new masks and without it; so no secret need be shared out beforehand.
That is safe from a server that listens, not from one that lies: it could say that a site is gone which is not, and take
one sum from the other.

Nobody sees what one site gives to a sum, so no mean can be trimmed there. What holds instead: a site whose numbers are
not finite, or too large, leaves and sends nothing; numbers that are divided by one another are sums over the same sites
(`training.sites.totals`); each site sees to it that its accounts do not outweigh the others' (`training.sites.voice`).
A site that lies in a sum is not found out: one that says ten times as much counts as ten sites.

Weights of networks are sent as they are. The server takes their mean, within bounds: what is not finite is left out, no
site counts for more than twice the median one, and none is farther from the median than twice the median distance (norm
bounding: Sun et al., "Can you really backdoor federated learning?", 2019).
"""

import hashlib
import hmac
import io
import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

from training.sites import TWICE, Floats

logger = logging.getLogger(__name__)
SCALE = 2.0**24  # of fixed point: sums up to 5e11, in steps of 6e-8
LARGEST = 2.0**36  # of one number of one site, so that no sum overflows
FEWEST = 2  # sites; of two, each one can take its own part from the sum, so three are the fewest that keep a secret
Head = dict[str, Any]
# numpy reads heads of arrays by `ast`, which in Python 3.11 fails now and then where two threads use it at once
# (https://github.com/python/cpython/issues/106905)
READING = threading.Lock()


class FederationError(ConnectionError):
    """Sites cannot go on together; the message says which, and why."""


def pack(head: Head, arrays: Sequence[NDArray[Any]] = ()) -> bytes:
    """A message as bytes: what it says, and its arrays."""
    file = io.BytesIO()
    np.savez(file, np.frombuffer(json.dumps(head).encode(), dtype=np.uint8), *arrays)
    return file.getvalue()


def unpack(message: bytes) -> tuple[Head, list[NDArray[Any]]]:
    """What a message says, and its arrays; raises ValueError if it is none."""
    try:
        with READING, np.load(io.BytesIO(message), allow_pickle=False) as found:
            head, *arrays = (found[f"arr_{k}"] for k in range(len(found.files)))
        told = json.loads(head.tobytes())
        return {"do": str(told["do"]), **told}, arrays
    except Exception as error:  # numpy, zipfile and json each have errors of their own for what is damaged
        raise ValueError(f"no message of a site: {error}") from error


class Site:
    """One site, as its fit sees the others; see `training.sites`.

    Args:
        name: of the site, another one for each.
        key: a secret that all sites have, and the server has not.
        exchange: sends a message to the server, and waits for its answer.

    Raises:
        FederationError: the others have another key, or the server lets this site go.
    """

    def __init__(self, name: str, key: bytes, exchange: Callable[[bytes], bytes]) -> None:
        self.name, self.key, self.exchange, self.step = name, key, exchange, 0
        private = X25519PrivateKey.generate()
        public = private.public_key().public_bytes_raw().hex()
        told, _ = self._ask({"do": "join", "public": public, "proof": self._proof(name, public)})
        self.alive: list[str] = sorted(told["sites"])
        self._left(self.alive)
        self.secrets: dict[str, bytes] = {}
        for other, given in told["sites"].items():
            if not hmac.compare_digest(given["proof"], self._proof(other, given["public"])):
                raise FederationError(f"site {other} has another key; give all sites the same file")
            if other != name:
                shared = private.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(given["public"])))
                self.secrets[other] = hmac.digest(key, shared, "sha256")

    def total(self, part: Floats) -> Floats:
        """The sum of what all sites give; raises FederationError if this one's part is not finite, or too large."""
        if not (np.abs(part) < LARGEST).all():
            raise FederationError(f"site {self.name}: a part of a sum is not finite, or {LARGEST:g} and more")
        self.step, attempt = self.step + 1, 0
        fixed = np.rint(part * SCALE).astype(np.int64).view(np.uint64)
        while True:
            head = {"do": "sum", "step": self.step, "sites": self.alive}
            told, arrays = self._ask(head, [fixed + self._mask(len(part), attempt)])
            if told["do"] == "sum":
                return arrays[0].view(np.int64) / SCALE
            self.alive, attempt = self._left(told["sites"]), attempt + 1

    def averaged(self, parts: Sequence[NDArray[Any]], weight: float) -> list[NDArray[Any]]:
        """The bounded mean of what all sites give, with the dtypes of this site's."""
        self.step += 1
        told, arrays = self._ask({"do": "mean", "step": self.step, "weight": weight}, parts)
        self.alive = self._left(told["sites"])
        return [mean.astype(own.dtype) for mean, own in zip(arrays, parts, strict=True)]

    def _left(self, sites: Sequence[str]) -> list[str]:
        """The sites that are left, by what the server says; by itself alone, what a site sends would not be hidden."""
        if not {self.name} < set(sites) <= set(self.alive):
            raise FederationError(f"site {self.name}: the server says that {sites} are left of {self.alive}")
        return sorted(sites)

    def _mask(self, size: int, attempt: int) -> NDArray[np.uint64]:
        """What hides this site's numbers, uint64 (size,); the masks of all sites that are left sum to 0."""
        mask = np.zeros(size, dtype=np.uint64)
        for other in self.alive:
            if other != self.name:
                nonce = hashlib.sha256(f"{self.step}/{attempt}/{','.join(self.alive)}".encode()).digest()[:16]
                stream = Cipher(ChaCha20(self.secrets[other], nonce), None).encryptor().update(bytes(8 * size))
                pad = np.frombuffer(stream, dtype=np.uint64)
                mask = mask + pad if self.name < other else mask - pad
        return mask

    def _proof(self, name: str, public: str) -> str:
        return hmac.digest(self.key, f"{name}\0{public}".encode(), "sha256").hex()

    def _ask(self, head: Head, arrays: Sequence[NDArray[Any]] = ()) -> tuple[Head, list[NDArray[Any]]]:
        told, found = unpack(self.exchange(pack(head, arrays)))
        if told["do"] == "out":
            raise FederationError(f"site {self.name} is left out: {told['why']}")
        return told, found


class Meeting:
    """The server in the middle: adds up what sites send, step by step, and keeps nothing.

    Attributes:
        alive: the sites that still take part.
    """

    def __init__(self, sites: Sequence[str]) -> None:
        self.alive = sorted(sites)

    def answers(self, told: Mapping[str, bytes | None]) -> dict[str, bytes]:
        """The answer to each site that takes part, or did until now; None stands for one that sends nothing.

        Raises:
            FederationError: too few are left.
        """
        heard = {name: self._heard(told.get(name)) for name in self.alive}
        forms = Counter(form for form, _, _ in heard.values() if form is not None)
        form = max(forms, key=lambda f: (forms[f], f), default=None)
        out = [name for name, (its, _, _) in heard.items() if its is None or its != form]
        for name in out:
            logger.warning(
                "site %s is left out: what it sends, or that it sends nothing, is not what the others do", name
            )
        self.alive = [name for name in self.alive if name not in out]
        if len(self.alive) < FEWEST:
            raise FederationError(f"{len(self.alive)} sites are left, and {FEWEST} are needed; gone: {', '.join(out)}")
        heads = {name: heard[name][1] for name in self.alive}
        arrays = {name: heard[name][2] for name in self.alive}
        answers = dict.fromkeys(out, pack({"do": "out", "why": "it sent nothing in time, or not what was asked"}))
        answer = self._answer(heads, arrays)
        return answers | dict.fromkeys(self.alive, answer)

    def _heard(self, message: bytes | None) -> tuple[str | None, Head, list[NDArray[Any]]]:
        """What a site sends, and first of what form it is; None if it is of none."""
        try:
            head, arrays = unpack(message or b"")
        except ValueError:
            return None, {}, []
        shapes = [(array.shape, array.dtype.str) for array in arrays]
        return f"{head['do']} {head.get('step')} {head.get('sites')} {shapes}", head, arrays

    def _answer(self, heads: Mapping[str, Head], arrays: Mapping[str, list[NDArray[Any]]]) -> bytes:
        do = next(iter(heads.values()))["do"]
        if do == "join":
            known = {name: {k: str(head.get(k)) for k in ("public", "proof")} for name, head in heads.items()}
            return pack({"do": "join", "sites": known})
        if do == "sum":
            if any(head.get("sites") != self.alive for head in heads.values()):
                return pack({"do": "again", "sites": self.alive})
            parts = np.stack([one[0] for one in arrays.values()])
            return pack({"do": "sum"}, [parts.sum(axis=0, dtype=np.uint64)])
        weights = [head.get("weight") for head in heads.values()]
        return pack({"do": "mean", "sites": self.alive}, bounded_mean(list(arrays.values()), weights))


def bounded_mean(parts: Sequence[Sequence[NDArray[Any]]], weights: Sequence[Any]) -> list[NDArray[np.float32]]:
    """The weighted mean of the arrays of several sites, of which none decides alone.

    Args:
        parts: for each site, arrays of the same shapes.
        weights: how much each site says that it counts.

    Raises:
        FederationError: no site sends finite numbers.
    """
    flat = [np.concatenate([np.ravel(array).astype(np.float64) for array in part]) for part in parts]
    given = [float(w) if isinstance(w, int | float) and np.isfinite(w) and w > 0 else 0.0 for w in weights]
    usable = [k for k, x in enumerate(flat) if np.isfinite(x).all() and given[k]]
    if not usable:
        raise FederationError("no site sends weights that are finite numbers")
    if len(usable) < len(flat):
        logger.warning("%d sites send weights that are no finite numbers, and do not count", len(flat) - len(usable))
    sent = np.stack([flat[k] for k in usable])
    counts = np.array([given[k] for k in usable])
    counts = np.minimum(counts, TWICE * np.median(counts))
    middle = np.median(sent, axis=0)
    away = sent - middle
    distance = np.linalg.norm(away, axis=1)
    shrink = np.minimum(1.0, TWICE * np.median(distance) / np.maximum(distance, 1e-12))
    mean = middle + (counts * shrink) @ away / counts.sum()
    found, at = [], 0
    for array in parts[usable[0]]:
        found.append(mean[at : at + array.size].reshape(array.shape).astype(np.float32))
        at += array.size
    return found
