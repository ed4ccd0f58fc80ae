import asyncio
import json
import shutil
import weakref
from pathlib import Path

import pytest

from service.model.bundle import Bundle
from service.model.togetherness import FEWEST_KNOWN
from service.schemas.problems import Problem
from service.schemas.terms import EVENTS, SCORE, WARM
from service.serving.service import Serving
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.support.bundles import unmoved
from tests.support.logs import click, sequences


def test_the_positions_of_a_body_are_guessed_from_those_before_it_on_its_route(
    bundle: Bundle, attacked: Path, tmp_path: Path
) -> None:
    settings = Settings(bundle=bundle.path, state_dir=tmp_path, live_every=4)
    [sequence] = sequences(attacked / "events.csv", 1)
    events = sequence["events"]
    assert isinstance(events, list)

    async def main() -> None:
        serving = Serving(settings, Metrics())
        await serving.start()
        try:
            body = json.dumps({"sequences": [sequence]}).encode()
            await serving.score(body, 10_000, 500)
            assert serving.admission.positions_per_byte == {SCORE: (len(events) + 1) / 500, EVENTS: 0, WARM: 0}
            for number, event in enumerate(events[:4], 1):
                one = json.dumps({"events": [{"key": "k", "event": event}]}).encode()
                await serving.take(one, 10_000, 100)
                assert serving.admission.positions_per_byte[EVENTS] == pytest.approx(0.05 if number == 4 else 0)
            with serving.admission.arriving(EVENTS, 400):
                assert serving.admission.arriving_positions == pytest.approx(20)
                assert serving.admission.arriving_requests == 1
            assert serving.admission.arriving_positions == pytest.approx(0)
            assert serving.admission.arriving_requests == 0
        finally:
            await serving.close()

    asyncio.run(main())


def test_a_model_that_was_replaced_is_let_go(bundle: Bundle, tmp_path: Path) -> None:
    async def main() -> None:
        serving = Serving(Settings(bundle=bundle.path, state_dir=tmp_path), Metrics())
        await serving.start()
        try:
            assert serving.registry.active is not None
            old = weakref.ref(serving.registry.active.model.engine)
            await serving.registry.reload(None, "test")
            assert old() is None
        finally:
            await serving.close()

    asyncio.run(main())


def test_a_promotion_that_fails_leaves_nothing_behind(bundle: Bundle, tmp_path: Path) -> None:
    state, other = tmp_path / "state", tmp_path / "other"
    shutil.copytree(bundle.path, other)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "version": "2"}))

    async def main() -> None:
        serving = Serving(Settings(bundle=bundle.path, bundles=tmp_path, challenger=other, state_dir=state), Metrics())
        await serving.start()
        try:
            (state / "thresholds.json").write_text(json.dumps({"2": {"review": 2, "block": 1}}))
            with pytest.raises(Problem, match="0 <= review <= block <= 1"):
                await serving.registry.promote("test")
            assert serving.registry.current().model.bundle.version == bundle.version
        finally:
            await serving.close()

    asyncio.run(main())
    assert not (state / "audit.jsonl").exists()
    assert not (state / "promoted.json").exists()


def test_other_requests_go_on_while_many_events_are_taken_in(bundle: Bundle, tmp_path: Path) -> None:
    body = json.dumps({"events": [{"key": f"k{n % 50}", "event": click(n)} for n in range(1024)]}).encode()

    async def main() -> None:
        serving, turns = Serving(Settings(bundle=bundle.path, state_dir=tmp_path, crowd=False), Metrics()), 0
        await serving.start()

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(others())
        try:
            content = json.loads(await serving.warm(body, 10_000))
            assert [one["kept"] for one in content["results"]] == [n // 50 + 1 for n in range(1024)]
            assert turns >= 2 * (1024 // 64 - 1)  # once while 64 events are checked, once while they join their windows
        finally:
            beside.cancel()
            await serving.close()

    asyncio.run(main())


def test_a_queue_that_fills_up_does_not_refuse_what_was_let_in(bundle: Bundle, attacked: Path, tmp_path: Path) -> None:
    """The crowd brings copies back to the graph while a bulk request waits for it, beyond the bound of the queue."""
    some, copies = sequences(attacked / "events.csv", 2 * FEWEST_KNOWN), 40
    settings = Settings(
        bundle=unmoved(bundle, tmp_path / "unmoved").path,
        state_dir=tmp_path / "state",
        provider="cpu",
        cascade=True,
        crowd=True,
        queue_tokens=1000,
        batch_tokens=512,
    )

    async def main() -> None:
        serving = Serving(settings, Metrics())
        await serving.start()
        try:
            assert serving.crowd is not None
            for one in some:
                content = json.loads(await serving.score(json.dumps({"sequences": [one]}).encode(), 60_000))
                if "network" in content["results"][0]:
                    allowed = one
            alike = [{**allowed, "id": f"copy {k}"} for k in range(copies)]
            await serving.score(json.dumps({"sequences": alike[1:]}).encode(), 60_000)
            last, bulk = [alike[0]], {"sequences": some, "reasons": 1}
            known = len(serving.crowd.state.accounts)
            replies = [serving.score(json.dumps(body).encode(), 60_000) for body in ({"sequences": last}, bulk)]
            [content, _] = [json.loads(reply) for reply in await asyncio.gather(*replies)]
            assert "network" not in content["results"][0]
            assert len(serving.crowd.state.accounts) == known + 1
        finally:
            await serving.close()

    asyncio.run(main())
