"""Shows how far a verdict "genuine" holds by how many times the odds may rise: for genuine accounts, and for attackers.

    python tests/bench/exemptions.py [--seed N]

A model is fitted on a made-up shop with injected attacks, and scores the accounts of another such shop at each of their
events. The verdict is on the first answer that flags an account, also where it attacks: that is the mistake to bound.
Shown are the shares of its later flagged answers that the exemption allows.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from service.encoding.columns import columns_of
from service.model.bundle import Bundle
from service.model.exemption import ODDS
from service.model.false_alarms import log_odds
from service.model.scorer import Model, Score
from tests.support.logs import genuine_log, sequences
from training.config import FitConfig
from training.data.attacks import ATTACKS
from training.data.catalogue import InjectConfig
from training.data.clean import clean_events
from training.data.injection import inject, write
from training.data.lookalikes import LOOKALIKES
from training.fit.bundle import fit_bundle

USERS = 1000
AT_ONCE = 512  # sequences that are scored together
TIMES = (1.0, 2.0, 3.0, ODDS, 10.0, 30.0)


def attacked(folder: Path, seed: int) -> dict[str, bool]:
    """Writes a shop's log and labels; returns which accounts attack."""
    folder.mkdir()
    genuine_log(USERS, seed).write_csv(folder / "genuine.csv")
    log, _ = clean_events(folder / "genuine.csv")
    config = InjectConfig(size=0.02, filler=(0.1, 0.3), campaigns=(3,), seed=seed)
    write(folder, *inject(log, None, config, [kind for kind in ATTACKS if kind not in LOOKALIKES]))
    rows = (folder / "labels.csv").read_text().splitlines()[1:]
    # accounts are numbers, which `sequences` reads without leading zeros
    return {str(int(account)): label == "1" for account, label, *_ in (row.split(",") for row in rows)}


def flagged_looks(model: Model, events: list[dict[str, object]]) -> list[float]:
    """Log odds of an account's answers that flag it, where it is scored at each of its events."""
    found: list[float] = []
    looks = [columns_of(events[: n + 1]) for n in range(len(events))]
    for start in range(0, len(looks), AT_ONCE):
        for score in model.scores(looks[start : start + AT_ONCE]):
            assert isinstance(score, Score)
            if model.bundle.thresholds.decide(score.score, score.false_alarm_rate) != "allow":
                found.append(float(log_odds(score.score)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    with TemporaryDirectory() as name:
        old, new = Path(name) / "old", Path(name) / "new"
        attacked(old, 2 * seed)
        attacks = attacked(new, 2 * seed + 1)
        fitted = fit_bundle(old / "events.csv", old / "labels.csv", Path(name) / "bundle", FitConfig(preset="tiny"))
        model = Model.load(Bundle.open(fitted.path))
        looks = {s["id"]: flagged_looks(model, s["events"]) for s in sequences(new / "events.csv", 10 * USERS)}
    print("times   ", *(f"{times:>6g}" for times in TIMES))
    for attacking in (False, True):
        some = [np.array(found) for account, found in looks.items() if attacks[account] is attacking and len(found) > 1]
        risen = np.concatenate([found[1:] - found[0] for found in some])
        shares = [np.mean(risen <= np.log(times)) for times in TIMES]
        name = "attackers" if attacking else "genuine"
        print(f"{name:9}", *(f"{share:6.3f}" for share in shares), f" of {len(risen)} answers, {len(some)} accounts")


if __name__ == "__main__":
    main()
