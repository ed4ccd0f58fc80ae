"""Scores one log in many processes of a Ray cluster, with the steps of `apply.bulk`."""

import json
import logging
import os
import shutil
from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from service.engine.session import Runtime
from service.model.bundle import Bundle
from service.model.scorer import Model
from training.apply.bulk import (
    ROWS_OF_PART,
    WORK,
    Piece,
    Plan,
    ask_crowd,
    deal,
    dealt_mark,
    hold_part,
    parts_to_hold,
    score_part,
)
from training.apply.crowd import Crowd, Track
from training.apply.tally import Tally
from training.data.read import AS_FOUND, ReadOptions
from training.verbosity import quieten

LOCAL = "local"
TOKEN = "where the cluster asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"


def connect(address: str) -> Any:
    """Ray, connected to a cluster; `local` starts one of this machine.

    Raises:
        ConnectionError: there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # which would report to its makers
    import ray

    if not ray.is_initialized():
        try:
            ray.init(
                address=None if address == LOCAL else address,
                include_dashboard=False,
                logging_config=ray.LoggingConfig(log_level="ERROR"),
                logging_level=logging.ERROR,
            )
        except ConnectionError as error:
            raise ConnectionError(f"--ray {address}: {error}; {TOKEN}") from error
    return ray


class ScorePart:
    """Scores parts in one process, with one session of its own."""

    def __init__(self, bundle: Path, plan: Plan, out: Path, cuda: bool) -> None:
        quieten(logging.WARNING)
        self.plan, self.out = plan, out
        self.model = Model.load(Bundle.open(bundle), Runtime("cuda" if cuda else "cpu", threads=1))

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {"tally": json.dumps(score_part(self.model, self.plan, int(row["part"]), self.out).to_json())}


def _each(
    ray: Any, track: Track, items: list[dict[str, Any]], title: str, work: Any, **workers: Any
) -> Iterator[dict[str, Any]]:
    """What is made of each item, in no order; `workers` says by whom, as Ray's `map` takes it."""
    logging.getLogger(ray.data.__name__).setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    if items:
        rows = ray.data.from_items(items, override_num_blocks=len(items)).map(work, **workers).iter_rows()
        yield from track(rows, title, len(items))


def score_on_ray(
    address: str,
    bundle: Bundle,
    events: Path,
    out: Path,
    columns: Mapping[str, str],
    track: Track = lambda steps, *_: steps,
    rows_of_part: int = ROWS_OF_PART,
    allow_missing: bool = False,
    how: ReadOptions = AS_FOUND,
    crowd: Crowd = Crowd.NONE,
) -> Tally:
    """Scores a Parquet log of any size into Parquet files in `out`, each row as `recguard-train score` has it.

    One session a core, or a GPU where the cluster has some. An interrupted run goes on when it is called again. On
    several machines the paths must be of storage that they share.

    Args:
        rows_of_part: rows that are held in memory together, roughly.
        allow_missing: whether the log may lack columns that the bundle reads.
        how: how the log's times are read.
        crowd: beside whom each sequence is judged; what the crowd says is found in this process.

    Returns:
        What was done.

    Raises:
        LogError: the log cannot be read, or the folder holds something else.
    """
    out, path = out.absolute(), bundle.path.absolute()
    plan = Plan.of(events, bundle, columns, rows_of_part, allow_missing, how, crowd)
    Plan.begin(out, plan)
    ray = connect(address)
    gpus, cpus = (int(ray.cluster_resources().get(kind, 0)) for kind in ("GPU", "CPU"))

    def deal_out(row: Mapping[str, Any]) -> dict[str, Any]:
        deal(plan, Piece(**row), out)
        return {"piece": row["number"]}

    def hold(row: Mapping[str, Any]) -> dict[str, Any]:
        hold_part(Bundle.open(path), plan, int(row["part"]), out)
        return {"part": row["part"]}

    each = partial(_each, ray, track)
    pieces = [vars(piece) for piece in plan.pieces() if not dealt_mark(out, piece.number).exists()]
    deque(each(pieces, "dealing", deal_out), maxlen=0)
    deque(each([{"part": part} for part in parts_to_hold(plan, out)], "reading", hold), maxlen=0)
    ask_crowd(plan, bundle, out, track)
    scored = each(
        [{"part": part} for part in range(plan.parts)],
        "scoring",
        ScorePart,
        fn_constructor_args=(path, plan, out, gpus > 0),
        compute=ray.data.ActorPoolStrategy(size=min(gpus or cpus, plan.parts)),
        num_cpus=0 if gpus else 1,
        num_gpus=1 if gpus else 0,
    )
    tally = Tally.sum(Tally.of_json(json.loads(row["tally"])) for row in scored)
    shutil.rmtree(out / WORK)
    return tally
