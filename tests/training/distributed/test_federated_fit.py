"""Sites behind pipes: one that hangs, or sends what spoils a fit, holds up nobody; and a whole fit of several."""

import multiprocessing
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from tests.support.logs import genuine_log
from tests.support.training import refused
from training.config import FitConfig
from training.data.catalogue import InjectConfig
from training.data.clean import clean_events
from training.data.injection import inject, write
from training.data.log import LogError
from training.distributed import federated_fit
from training.distributed.federated_fit import Files, fit_together
from training.distributed.federation import Site
from training.experiments.cross_validation import evaluate_bundle

KEY = b"a secret of the sites"


def met(works: dict[str, Callable[[Site], object]], seconds: float) -> dict[str, object]:
    """What the work of each site gives, or the error it ends with; each talks over a pipe with the server here."""
    links, threads, found = dict[str, Connection](), [], dict[str, object]()

    def at(name: str, link: Connection) -> None:
        try:
            found[name] = works[name](Site(name, KEY, partial(federated_fit.exchange, link)))
        except Exception as error:  # it is what the test looks at
            found[name] = error
        link.close()

    for name in works:
        links[name], theirs = multiprocessing.Pipe()
        threads.append(threading.Thread(target=at, args=(name, theirs)))
        threads[-1].start()
    try:
        federated_fit._meet(links, seconds)
    finally:
        for link in links.values():
            link.close()
        for thread in threads:
            thread.join()
    return found


def one(site: Site) -> list[float]:
    return site.total(np.ones(2)).tolist()


def test_a_site_that_hangs_is_left_out_and_named_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    over = threading.Event()

    def sums(site: Site) -> list[list[float]]:
        found = [one(site), one(site)]
        over.set()
        return found

    found = met({"a": sums, "b": sums, "hung": lambda site: over.wait(30)}, 0.5)
    assert found == {"a": [[2.0, 2.0]] * 2, "b": [[2.0, 2.0]] * 2, "hung": True}
    assert "site hung has sent nothing whole, and not ended, for 0.5 seconds: it is left out" in caplog.text


@pytest.mark.parametrize("whole", [False, True])  # whether it hangs within a message, or before the answer to it
def test_a_site_that_hangs_within_a_message_or_takes_no_answer_holds_up_nobody(
    whole: bool, caplog: pytest.LogCaptureFixture
) -> None:
    over, numbers = threading.Event(), [np.arange(100_000, dtype=np.float32)]  # more than a pipe takes by itself

    def means(site: Site) -> bool:
        same = [np.array_equal(site.averaged(numbers, 1.0)[0], numbers[0]) for _ in range(2)]
        over.set()
        return all(same)

    def hangs(site: Site) -> None:
        assert isinstance(site.exchange, partial)
        [link] = site.exchange.args

        def hang(message: bytes) -> bytes:
            federated_fit._send(link, message) if whole else link.send_bytes(message[: federated_fit.FRAME])
            over.wait(30)
            raise EOFError

        site.exchange = hang
        site.averaged(numbers, 1.0)

    found = met({"a": means, "b": means, "hung": hangs}, 3.0)
    assert (found["a"], found["b"], type(found["hung"])) == (True, True, EOFError)
    assert (
        "site hung: it takes no answer for 3 seconds" if whole else "site hung has sent nothing whole"
    ) in caplog.text


def test_where_all_hang_it_ends_too(caplog: pytest.LogCaptureFixture) -> None:
    over = threading.Event()
    start = time.monotonic()
    threading.Timer(1.5, over.set).start()
    met(dict.fromkeys("abc", lambda site: over.wait(30)), 0.5)
    assert caplog.text.count("it is left out") == 3
    assert time.monotonic() - start < 20


def test_a_process_that_does_not_end_is_stopped_and_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(federated_fit, "ENDING", 0.3)
    spawn = multiprocessing.get_context("spawn")
    hung, done = spawn.Process(target=time.sleep, args=(600,)), spawn.Process(target=time.sleep, args=(0,))
    hung.start()
    done.start()
    done.join()
    federated_fit._end({"hung": hung, "done": done})
    assert (hung.exitcode, done.exitcode) == (-9, 0)
    assert caplog.text.count("its process is stopped") == 1
    assert "site hung does not end" in caplog.text


def test_two_sites_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="2 sites: of two, each would learn what the other has"):
        fit_together(dict.fromkeys("ab", Files(tmp_path, tmp_path)), tmp_path, FitConfig(), KEY)


@pytest.mark.slow
def test_sites_fit_one_model_though_one_of_them_has_no_log(tmp_path: Path) -> None:
    files = {}
    for number, name in enumerate(("a", "b", "c", "judged")):
        (tmp_path / name).mkdir()
        genuine_log(70, number).write_csv(tmp_path / name / "genuine.csv")
        log, _ = clean_events(tmp_path / name / "genuine.csv")
        kinds = ["random_push", "click_farm", "crawler"]
        few = InjectConfig(size=0.3, campaigns=(1,), seed=number)
        write(tmp_path / name, *inject(log, None, few, kinds if name == "judged" else kinds[number : number + 1]))
        files[name] = Files(tmp_path / name / "events.csv", tmp_path / name / "labels.csv")
    judged = files.pop("judged")
    files["gone"] = Files(tmp_path / "gone.csv", judged.labels)
    bundles = fit_together(files, tmp_path / "out", FitConfig(epochs=2, test_share=0.0, proximal=0.01), KEY)
    assert set(bundles) == {"a", "b", "c"}
    quality = {name: evaluate_bundle(bundle, judged.events, judged.labels, None) for name, bundle in bundles.items()}
    assert all(found.auc > 0.9 for found in quality.values()), quality
    linear = [np.load(bundle.path / "statistics.npz") for bundle in bundles.values()]
    shared = [key for key in linear[0].files if "idf" in key or "suspicion" in key]
    assert shared
    assert all(np.array_equal(linear[0][key], other[key]) for key in shared for other in linear[1:])


@pytest.mark.slow
def test_where_no_log_can_be_used_the_command_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("sequence_id,ts\n")
    sites = [part for name in "abc" for part in ("--site", f"{name}={tmp_path}/empty.csv,{tmp_path}/empty.csv")]
    said = refused("federate", *sites, "--out", tmp_path / "out")
    assert "no site came to its end" in said or "sites are left" in said
    assert "Traceback" not in said
