"""AsyncClient against a server inside the test; what it shares with Client is tested there."""

import asyncio
import unittest

import grpc

import lancet
from fake_server import PATIENCE, FakeServer, answered, delta, drawn, preview, progress, started, whole_picture
from lancet.v1 import lancet_pb2 as pb


class AsyncTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.server = FakeServer(lambda *_: iter(whole_picture()))
        self.addCleanup(self.server.__exit__)
        self.client = lancet.AsyncClient(self.server.address, token="secret", timeout=PATIENCE)
        self.addAsyncCleanup(self.client.close)

    def hang_after(self, *responses):
        def script(_request, _context, _call):
            yield from responses
            self.server.hang()

        self.server.script = script

    async def call_is_over(self):
        return await asyncio.to_thread(self.server.await_call_over)

    async def test_events(self):
        events = [event async for event in self.client.generate("a cat", preview=2)]
        self.assertEqual([type(event) for event in events],
                         [lancet.Queued, lancet.Started, lancet.Progress, lancet.Preview, lancet.Progress,
                          lancet.ImageResult])
        self.assertEqual(events[-1].image.size, (32, 16))
        self.assertEqual(self.server.metadata[0]["authorization"], "Bearer secret")

    async def test_results(self):
        stream = self.client.generate("a cat")
        result = await stream.result()
        self.assertIs(await stream.result(), result)
        self.server.script = lambda *_: iter([drawn(pb.EditImageResponse)])
        self.assertEqual((await self.client.edit(b"file", "make it blue").result()).seed, 7)
        self.server.script = lambda *_: iter([delta("a panda"), answered("a panda")])
        self.assertEqual((await self.client.describe(b"file").result()).text, "a panda")

    async def test_at_the_same_time(self):
        results = await asyncio.gather(*(self.client.generate(f"cat {i}").result() for i in range(4)))
        self.assertEqual(len(results), 4)
        self.assertEqual({request.prompt for request in self.server.requests}, {f"cat {i}" for i in range(4)})

    async def test_model_info(self):
        self.assertEqual((await self.client.model_info()).name, "fake")

    async def test_errors(self):
        def script(_request, context, _call):
            yield started()
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "width: 8 is not from 16 to 64")

        self.server.script = script
        stream = self.client.generate("a cat")
        for _ in range(2):
            with self.assertRaises(lancet.InvalidArgument) as caught:
                await stream.result()
            self.assertEqual((caught.exception.field, caught.exception.request_id), ("width", "r1"))
        self.server.script = lambda *_: iter([started()])
        with self.assertRaises(lancet.DataLoss):
            await self.client.generate("a cat").result()

    async def test_deadline(self):
        self.hang_after(started())
        with self.assertRaises(lancet.DeadlineExceeded):
            await self.client.generate("a cat", timeout=0.3).result()

    async def test_leaving_the_loop_cancels(self):
        self.hang_after(started())
        stream = self.client.generate("a cat")
        async for _ in stream:
            break
        self.assertTrue(await self.call_is_over())
        with self.assertRaises(lancet.Cancelled):
            await stream.result()

    async def test_leaving_the_block_cancels(self):
        self.hang_after(started())
        async with self.client.generate("a cat") as stream:
            events = aiter(stream)
            await anext(events)
        self.assertTrue(await self.call_is_over())

    async def test_cancelling_the_task_cancels(self):
        self.hang_after(started())
        stream = self.client.generate("a cat")
        events = aiter(stream)
        await anext(events)
        with self.assertRaises(asyncio.TimeoutError):
            await asyncio.wait_for(stream.result(), 0.1)
        self.assertTrue(await self.call_is_over())

    async def test_cancelled_by_another_task(self):
        self.hang_after(started())
        stream = self.client.generate("a cat")
        with self.assertRaises(lancet.Cancelled):
            async for _ in stream:
                asyncio.get_running_loop().call_later(0.1, stream.cancel)
        self.assertTrue(await self.call_is_over())

    async def test_closing_the_client_cancels(self):
        self.hang_after(started())
        stream = self.client.generate("a cat")
        events = aiter(stream)
        await anext(events)
        asyncio.get_running_loop().call_later(0.1, lambda: asyncio.ensure_future(self.client.close()))
        with self.assertRaises(lancet.Cancelled):
            await anext(events)

    async def test_rejoins_with_a_key(self):
        def script(_request, context, call):
            yield started()
            yield progress(1)
            yield preview(1)
            if call == 0:
                context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
            yield preview(2)
            yield drawn()

        self.server.script = script
        with self.assertRaises(lancet.Unavailable):
            await self.client.generate("a cat").result()
        self.server.requests.clear()
        events = [event async for event in self.client.generate("a cat", idempotency_key="key")]
        self.assertEqual([event.step for event in events if isinstance(event, lancet.Preview)], [1, 2])
        self.assertEqual(len(self.server.requests), 2)

    async def test_cancelled_while_it_waits_to_rejoin(self):
        def script(_request, context, _call):
            yield started()
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

        self.server.script = script
        stream = self.client.generate("a cat", idempotency_key="key")
        asyncio.get_running_loop().call_later(0.4, stream.cancel)
        with self.assertRaises(lancet.Cancelled):
            await stream.result()


if __name__ == "__main__":
    unittest.main()
