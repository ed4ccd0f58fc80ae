"""A second bundle that scores the champion's traffic in shadow, in its own process and only on idle cores.

The challenger hears of a request only after the champion has answered it, and never makes the champion wait. Its
process has the scheduler's idle class, so it gives way to anything else that wants a core. Requests that it is too
slow for are dropped and counted.

The two processes talk over pipes in lines of JSON. The champion sends its answers in one line, followed by the body of
the request, which is `size` bytes long. The challenger sends its own answers back. A line may also name an account that
is to be forgotten.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from service.encoding.columns import columns_of, distinct
from service.encoding.encoder import Encoded
from service.encoding.remembered import Given
from service.encoding.values import EventError
from service.engine.session import Runtime
from service.model.bundle import Bundle
from service.model.looks import Limits
from service.model.policy import Policy
from service.model.scorer import Model, Score
from service.model.togetherness import Together
from service.schemas import messages
from service.schemas.parsing import parse
from service.schemas.problems import Problem
from service.serving.crowd import LiveCrowd
from service.serving.exemptions import by_thresholds
from service.serving.patience import end
from service.serving.steps import CROWD, remembered_of
from service.stores.overrides import Overrides
from service.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)
MOST_WAITING = 1 << 20  # bytes that may wait in the pipe to the challenger; above this, requests are dropped
LONGEST_LINE = 1 << 24  # bytes of an answer, which grows with the number of sequences in a request
STOP_SECONDS = 5.0
Answer = tuple[float, str, bool]  # score, decision, and whether all was known that should be, the crowd too


class Challenger:
    """The champion's side: sends traffic to the challenger, and counts its answers.

    Args:
        bundle: the challenger's bundle, opened and so verified. It runs on the CPU, since on a GPU it would slow down
            the champion.
        state: the state directory, which may hold thresholds for the challenger's version.
        most: largest number of sequences in a request.
        metrics: where the challenger's answers are counted.
        reviews_kept: whether reviews of live windows keep their rate over all looks at an account.
        crowd: how much it keeps of the crowd, which it watches by what it hears of; None if it watches none.
    """

    def __init__(
        self,
        bundle: Bundle,
        state: Path,
        most: int,
        metrics: Metrics,
        reviews_kept: bool = False,
        crowd: Limits | None = None,
    ) -> None:
        self.bundle, self.metrics = bundle, metrics
        self.command = [sys.executable, "-m", "service.serving.challenger", str(bundle.path), str(state), str(most)]
        self.command += ["reviews-kept"] * reviews_kept
        self.command += [f"crowd={crowd.accounts},{crowd.values}"] if crowd else []
        self.process: Process | None = None
        self.reader: asyncio.Task[None] | None = None

    async def start(self) -> None:
        # the challenger's process is not a worker, so its metrics must not be added to theirs
        env = {k: v for k, v in os.environ.items() if k != "PROMETHEUS_MULTIPROC_DIR"}
        self.process = await asyncio.create_subprocess_exec(
            *self.command, stdin=PIPE, stdout=PIPE, env=env, limit=LONGEST_LINE
        )
        self.reader = asyncio.create_task(self._listen(), name="challenger")
        self.metrics.challenger_info.labels(self.bundle.name, self.bundle.version).set(1)
        logger.info("%s %s runs in shadow", self.bundle.name, self.bundle.version)

    async def close(self) -> None:
        """Stops the challenger; requests that it has not answered are not counted."""
        self.metrics.challenger_info.labels(self.bundle.name, self.bundle.version).set(0)
        if self.process is None or self.reader is None:
            return
        await end(self.reader)
        with suppress(ProcessLookupError):
            self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), STOP_SECONDS)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()

    def offer(self, body: bytes, results: Sequence[dict[str, Any]], live: bool, pasts: Sequence[bytes]) -> None:
        """Sends a request and its results to the challenger, after the caller has sent the answer; returns at once."""
        asyncio.get_running_loop().call_soon(self._offer, body, results, live, pasts)

    def _offer(self, body: bytes, results: Sequence[dict[str, Any]], live: bool, pasts: Sequence[bytes]) -> None:
        pipe = self.process.stdin if self.process else None
        if pipe is None or pipe.transport.is_closing() or pipe.transport.get_write_buffer_size() > MOST_WAITING:
            self.metrics.challenger_dropped.inc(len(results))
            return
        told = [
            None if "error" in r or "listed" in r else (r["score"], by_thresholds(r), CROWD not in r["missing"])
            for r in results
        ]
        header = {"size": len(body), "live": live, "told": told, "pasts": [past.hex() for past in pasts]}
        pipe.write(json.dumps(header).encode() + b"\n" + body)

    def forget(self, account: str) -> None:
        """Has the challenger forget an account; returns at once."""
        if self.process and self.process.stdin and not self.process.stdin.transport.is_closing():
            self.process.stdin.write(json.dumps({"forget": account}).encode() + b"\n")

    async def _listen(self) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            async for line in self.process.stdout:
                answer = json.loads(line)
                self.metrics.challenger_up.set(1)
                self.metrics.challenger_failed.inc(answer["failed"])
                for ours, theirs in answer["pairs"]:
                    self.metrics.challenger_difference.observe(theirs[0] - ours[0])
                    self.metrics.challenger_decisions.labels(ours[1], theirs[1]).inc()
        finally:
            self.metrics.challenger_up.set(0)
            self.process.stdin.close()  # what is offered from now on is counted, and not written where nobody reads
        logger.error("the challenger's process ended (code %s); the champion serves on", await self.process.wait())


def answers(
    model: Model,
    overrides: Overrides,
    body: bytes,
    live: bool,
    most: int,
    reviews_kept: bool = False,
    crowd: LiveCrowd | None = None,
    pasts: Sequence[bytes] = (),
) -> list[Answer | None]:
    """The challenger's answers to a request's sequences, or live windows; None for one that it cannot score."""
    policy = overrides.get(model.bundle.version) or Policy(model.bundle.thresholds)
    asked = parse(body, most)
    given: list[tuple[int, messages.Sequence, Given]] = []
    encoder, summaries = model.bundle.encoder, pasts or [b""] * len(asked.sequences)
    for at, (sequence, summary) in enumerate(zip(asked.sequences, summaries, strict=True)):
        if not isinstance(sequence, dict):
            with suppress(EventError):  # events that repeat an `event_id` count once, as in the champion's answer
                columns, length, _ = distinct(*columns_of(sequence.events), encoder.reading)
                given.append((at, sequence, (columns, length, remembered_of(sequence, summary, encoder))))
    crowd = None if asked.alone else crowd
    beside = _beside(crowd, model, given, asked.observe) if crowd else []
    found: list[Answer | None] = [None] * len(asked.sequences)
    scores = model.scores([one for *_, one in given], together=beside)
    for (at, sequence, one), score in zip(given, scores, strict=True):
        if isinstance(score, Score):
            thresholds, live_rate = policy.of_bundle(sequence.segment, one[1]), model.live_rate(score, live)
            decision = thresholds.decide(score.score, score.false_alarm_rate, live_rate, reviews_kept)
            beside_all = score.together or crowd is None or model.bundle.usual is None
            found[at] = score.score, decision, beside_all
    return found


def _beside(
    crowd: LiveCrowd, model: Model, given: Sequence[tuple[int, messages.Sequence, Given]], observe: bool
) -> list[Together]:
    """What the crowd says of each sequence; then they enter it."""
    usual, encodings = model.bundle.usual, model.bundle.encoder.encode_all([one for *_, one in given])
    found, entering = [], []
    for (_, sequence, _), encoded in zip(given, encodings, strict=True):
        account = [sequence.user_id or sequence.id]
        held = [encoded.held] if isinstance(encoded, Encoded) else []
        entering += [(account, held)] if held else []
        found.append(crowd.look(usual, account, held) if usual and held else Together.unknown([0]))
    for account, held in entering if observe else ():
        crowd.enter(account, held)
    return found


def _say(pairs: Iterable[tuple[Answer, Answer]], failed: int) -> None:
    sys.stdout.write(json.dumps({"pairs": list(pairs), "failed": failed}) + "\n")
    sys.stdout.flush()


def main(path: Path, state: Path, most: int, reviews_kept: bool, limits: Limits | None) -> None:
    """The challenger's side: reads requests from standard input until it ends, and answers on standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both; the champion ends this process
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(19)
    model = Model.load(Bundle.open(path), Runtime(threads=1))
    overrides = Overrides(state)
    crowd = LiveCrowd(limits) if limits else None
    _say([], 0)  # it is ready
    pipe = sys.stdin.buffer
    while line := pipe.readline():
        header = json.loads(line)
        if "forget" in header:
            if crowd:
                crowd.forget(header["forget"])
            continue
        body = pipe.read(header["size"])
        told, pasts = header["told"], list(map(bytes.fromhex, header["pasts"]))
        try:
            theirs = answers(model, overrides, body, header["live"], most, reviews_kept, crowd, pasts)
        except (Problem, RuntimeError, ValueError):  # one request must not end the comparison
            logging.getLogger(__name__).exception("a request could not be scored in shadow")
            theirs = [None] * len(told)
        # only like with like: the two may not know of the crowd since the same time
        pairs = [(ours, its) for ours, its in zip(told, theirs, strict=True) if ours and its and ours[2] == its[2]]
        _say(pairs, sum(1 for ours, its in zip(told, theirs, strict=True) if ours and not its))


if __name__ == "__main__":
    more = dict(part.partition("=")[::2] for part in sys.argv[4:])
    told = more.get("crowd", "")
    kept = Limits(**dict(zip(("accounts", "values"), map(int, told.split(",")), strict=True))) if told else None
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), "reviews-kept" in more, kept)
