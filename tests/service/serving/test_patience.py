import asyncio

from service.serving.patience import end


def test_who_loses_a_cancel_is_cancelled_again() -> None:
    lost = []

    async def goes_on() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                lost.append(1)
                if len(lost) == 3:
                    raise

    async def run() -> None:
        task, over = asyncio.create_task(goes_on()), asyncio.create_task(asyncio.sleep(0))
        await asyncio.sleep(0.01)
        await asyncio.wait_for(end(task, None, over), 10)
        assert task.cancelled()
        assert over.done()
        await asyncio.wait_for(end(None), 10)

    asyncio.run(run())
    assert len(lost) == 3
