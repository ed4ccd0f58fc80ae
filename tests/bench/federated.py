"""Sites that differ in users, items and known attacks: each alone, federated, and all logs in one.

    python tests/bench/federated.py --events build/movielens/events.csv --out build/federated --sites 3 --seeds 0 1 2

Each site has users of its own, sells two thirds of the catalogue, and knows other kinds of attack, from a few accounts
of each; more sites than kinds know two each, which others know, too. Each model judges, at each site, the users that
all sites hold back, as that site's catalogue shows them, among attackers of all kinds. The figure of a seed is the mean
average precision over the sites. Below it stands the same of each part alone, which tells where something is lost.
Logs, and fits alone and pooled, that --out has from an earlier run are not made again: a change of `federate` costs its
own fits.
"""

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import polars as pl
from sklearn.metrics import average_precision_score

from service.model.bundle import Bundle
from service.model.calibration import CHANNELS
from service.model.scorer import Model, evidence
from training.config import FitConfig
from training.data.catalogue import InjectConfig
from training.data.clean import clean_events
from training.data.cuts import in_time_order
from training.data.dataset import WHOLE, Dataset
from training.data.injection import inject, write
from training.distributed.federated_fit import Files, fit_together
from training.fit.bundle import fit_bundle
from training.fit.sequences import encoded_log

KINDS = (
    *("random_push", "average_nuke", "bandwagon_push"),
    *("takeover", "segment_nuke", "fake_order"),
    *("click_farm", "crawler"),
)  # dealt to the sites in this order, so that what is alike is known at one site
HELD_BACK, SOLD = 0.4, 2 / 3  # of the users, by all sites together; of the items, by each site
EVENTS = 60  # of each user, the first ones
KNOWN, JUDGED = 18, 48  # attackers that a site knows, and that each judges, of all its kinds together
FILLER = 0.01, 0.03  # of the catalogue, in the profile of an attacker
KEY = b"a secret that all sites know"
WAYS = ("alone", "federated", "pooled")


def sites(count: int) -> dict[str, list[str]]:
    """The names of the sites, and the attacks that each knows."""
    dealt = np.array_split(np.resize(KINDS, len(KINDS) if count <= len(KINDS) else 2 * count), count)
    return {f"site{k}": part.tolist() for k, part in enumerate(dealt)}


def log_of(events: pl.DataFrame, attackers: int, kinds: Sequence[str], seed: int, folder: Path) -> Files:
    """Writes a log of some users with attackers among them, under names that no other site has."""
    files = Files(folder / "events.csv", folder / "labels.csv")
    if folder.exists():
        return files
    folder.mkdir(parents=True)
    events.write_csv(folder / "genuine.csv")
    log, _ = clean_events(folder / "genuine.csv")
    size = attackers / len(kinds) / len(log)
    write(folder, *inject(log, None, InjectConfig(size=size, filler=FILLER, campaigns=(1,), seed=seed), list(kinds)))
    ours = pl.col("sequence_id", "^split_group$", "^campaign$")
    named = (pl.lit(f"{folder.name}-") + ours).name.keep()
    for file in ("events.csv", "labels.csv"):
        pl.read_csv(folder / file, infer_schema=False).with_columns(named).write_csv(folder / file)
    return files


def logs(events: Path, count: int, seed: int, out: Path) -> tuple[dict[str, Files], dict[str, Files]]:
    """What is learned from, at each site and "pooled", and what each site judges."""
    table, rng = pl.read_csv(events, infer_schema=False), np.random.default_rng(seed)
    table = table.group_by("sequence_id", maintain_order=True).head(EVENTS)
    users = rng.permutation(table["sequence_id"].unique().sort().to_numpy())
    items = table["item_id"].unique().sort().to_numpy()
    held, *own = np.split(users, np.linspace(HELD_BACK * len(users), len(users), count + 1).astype(int)[:-1])
    learned, judged = dict[str, Files](), dict[str, Files]()
    for number, ((name, kinds), mine) in enumerate(zip(sites(count).items(), own, strict=True)):
        sold = table.filter(pl.col("item_id").is_in(rng.choice(items, round(SOLD * len(items)), replace=False)))
        ours, theirs = (sold.filter(pl.col("sequence_id").is_in(of)) for of in (mine, held))
        learned[name] = log_of(ours, KNOWN, kinds, 1000 * seed + number, out / name)
        judged[name] = log_of(theirs, JUDGED, KINDS, 1000 * seed + number + 500, out / f"{name}-judged")
    pooled = out / "pooled"
    pooled.mkdir(exist_ok=True)
    for file in ("events.csv", "labels.csv"):
        parts = [pl.read_csv(out / name / file, infer_schema=False) for name in learned]
        pl.concat(parts).write_csv(pooled / file)
    return {**learned, "pooled": Files(pooled / "events.csv", pooled / "labels.csv")}, judged


def fit_alone(name: str, files: Files, out: Path, config: FitConfig) -> Bundle:
    if (out / name).exists():
        return Bundle.open(out / name)
    return fit_bundle(files.events, files.labels, out / name, config)


def quality(bundle: Bundle, files: Files) -> dict[str, float]:
    """The average precision of a model on a log, and of parts of it."""
    data = Dataset.read(files.events, files.labels, WHOLE, encoder=bundle.encoder)
    encoded = encoded_log(bundle.encoder, in_time_order(data.log))
    told = evidence(encoded, Model.load(bundle).engine.run, bundle.tabular).alone()
    said = {"score": bundle.calibration.score(told), "without network": bundle.calibration.without_network(told)}
    said |= dict(zip(CHANNELS, told.channels.T, strict=True))
    return {part: float(average_precision_score(data.labels.label, score)) for part, score in said.items()}


def measured(
    events: Path, count: int, seed: int, out: Path, config: FitConfig, rounds: int
) -> tuple[dict[str, list[dict[str, float]]], str]:
    """The average precision of each way and part of it at each site, and the seconds that the fits took."""
    learned, judged = logs(events, count, seed, out)
    start = time.perf_counter()
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        fit = partial(fit_alone, out=out / "alone", config=config)
        alone = dict(zip(learned, pool.map(fit, learned, learned.values()), strict=True))
    between = time.perf_counter()
    pooled = alone.pop("pooled")
    together = {name: learned[name] for name in alone}
    federated = fit_together(together, out / "federated", replace(config, epochs=rounds), KEY)
    seconds = f"{between - start:.0f} s alone and pooled, {time.perf_counter() - between:.0f} s federated"
    ap = {way: list[dict[str, float]]() for way in WAYS}
    for name, bundle in federated.items():  # a site with too few attackers to learn from is left out, and not judged
        for way, one in zip(WAYS, (alone[name], bundle, pooled), strict=True):
            ap[way].append(quality(one, judged[name]))
    return ap, seconds


def main() -> None:
    """Prints a table of each seed, and the means over the seeds with their spread."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--events", type=Path, required=True)
    asked.add_argument("--out", type=Path, required=True)
    asked.add_argument("--sites", type=int, default=3)
    asked.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    asked.add_argument("--epochs", type=int, default=FitConfig.epochs)
    asked.add_argument("--rounds", type=int, default=FitConfig.epochs, help="of a federated fit, at most")
    asked.add_argument("--proximal", type=float, default=FitConfig.proximal)
    given = asked.parse_args()
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in given.seeds:
        config = FitConfig(epochs=given.epochs, proximal=given.proximal, test_share=0.0, seed=seed)
        ap, seconds = measured(
            given.events, given.sites, seed, given.out / f"{given.sites}-{seed}", config, given.rounds
        )
        print(f"seed {seed}: {len(ap['federated'])} sites, {seconds}")
        for way, of_sites in ap.items():
            scores = [of_site["score"] for of_site in of_sites]
            found[way].append(float(np.mean(scores)))
            print(f"  {way:10} {found[way][-1]:.4f}  by site", *(f"{score:.4f}" for score in scores))
            parts = {part: np.mean([of_site[part] for of_site in of_sites]) for part in of_sites[0]}
            print("             by part", *(f"{part} {mean:.4f}" for part, mean in parts.items()), flush=True)
    for way, of_seeds in found.items():
        below = np.array(found["pooled"]) - of_seeds
        print(
            f"{way:10} {np.mean(of_seeds):.4f} +- {np.std(of_seeds):.4f}  below pooled {below.mean():+.4f}",
            *(f"{of_seed:+.4f}" for of_seed in below),
        )


if __name__ == "__main__":
    main()
