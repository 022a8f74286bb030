"""Client against a server inside the test: events, results, errors, deadlines, cancellation, rejoining."""

import io
import threading
import time
import unittest

import grpc
import PIL.Image

import lancet
from fake_server import (PATIENCE, FakeServer, answered, delta, drawn, image, preview, progress, started, whole_picture)
from lancet import _details_pb2
from lancet.v1 import lancet_pb2 as pb


def client_of(server, **options):
    return lancet.Client(server.address, **{"timeout": PATIENCE, **options})


def hangs(server, *responses):
    """A script that says something and then nothing more."""

    def script(_request, _context, _call):
        yield from responses
        server.hang()

    return script


class EventsTest(unittest.TestCase):
    def test_pictures(self):
        with FakeServer(lambda *_: iter(whole_picture())) as server, client_of(server) as client:
            events = list(client.generate("a cat", seed=7, preview=2))
            request = server.requests[0]
        self.assertEqual([type(event) for event in events],
                         [lancet.Queued, lancet.Started, lancet.Progress, lancet.Preview, lancet.Progress,
                          lancet.ImageResult])
        self.assertEqual(events[0], lancet.Queued(position=2, estimated_wait=1.5))
        self.assertEqual(events[1].warnings, ("an odd size",))
        self.assertEqual(events[2], lancet.Progress(step=2, total_steps=4, elapsed=1.0, estimated_remaining=1.0))
        self.assertEqual(events[3].image.size, (32, 16))
        self.assertEqual(events[3].image.format, "JPEG")
        result = events[5]
        self.assertIsInstance(result.image, PIL.Image.Image)
        self.assertEqual(result.image.getpixel((0, 0)), (255, 0, 0))
        self.assertEqual((result.seed, result.timings.total, result.model_fingerprint), (7, 2.5, "f00d"))
        self.assertEqual((request.prompt, request.seed, request.preview.every_n_steps), ("a cat", 7, 2))
        # What was not said is the server's to choose.
        self.assertFalse(request.HasField("width") or request.HasField("num_inference_steps"))
        self.assertEqual(request.idempotency_key, "")

    def test_every_argument_has_its_field(self):
        with FakeServer(lambda *_: iter([drawn()])) as server, client_of(server) as client:
            client.generate("a cat", seed=2**64 - 1, num_inference_steps=12, guidance_scale=2, timestep_shift=3.0,
                            guidance_interval=(0.25, 1), width=64, height=32,
                            preview=lancet.PreviewOptions(4, method="vae", max_side=128, format="webp"),
                            output_format="jpeg", priority="high", sampler="dpmpp_2m", idempotency_key="k").result()
            server.script = lambda *_: iter([drawn(pb.EditImageResponse)])
            client.edit(b"file", "make it blue", resolution="480p", sample_condition=True).result()
            request, edit = server.requests
        self.assertEqual(request, pb.GenerateImageRequest(
            prompt="a cat", seed=2**64 - 1, num_inference_steps=12, guidance_scale=2, timestep_shift=3,
            guidance_interval=pb.GuidanceInterval(start=0.25, end=1), width=64, height=32,
            preview=pb.PreviewOptions(every_n_steps=4, method=pb.PREVIEW_METHOD_VAE, max_side=128,
                                      format=pb.IMAGE_FORMAT_WEBP),
            output_format=pb.IMAGE_FORMAT_JPEG, priority=pb.PRIORITY_HIGH, sampler=pb.SAMPLER_DPMPP_2M,
            idempotency_key="k"))
        self.assertEqual(edit, pb.EditImageRequest(images=[b"file"], instruction="make it blue",
                                                   resolution=pb.RESOLUTION_VIDEO_480P, sample_condition=True))

    def test_result_alone(self):
        with FakeServer(lambda *_: iter(whole_picture(pb.EditImageResponse))) as server, client_of(server) as client:
            stream = client.edit(PIL.Image.new("RGB", (8, 8)), "make it blue")
            result = stream.result()
            self.assertEqual(result.picture.format, "png")
            self.assertIs(stream.result(), result)
            self.assertEqual(list(stream), [])
            sent = PIL.Image.open(io.BytesIO(server.requests[0].images[0]))
        self.assertEqual((sent.format, sent.size), ("PNG", (8, 8)))

    def test_answers(self):
        script = [started(pb.DescribeImageResponse), delta("a pan"), delta("da"), answered("a panda")]
        with FakeServer(lambda *_: iter(script)) as server, client_of(server) as client:
            stream = client.describe(b"file", "What is it?", max_new_tokens=9, temperature=0.5, system_prompt="s")
            text = "".join(event.text for event in stream if isinstance(event, lancet.Delta))
            result = stream.result()
            request = server.requests[0]
        self.assertEqual(text, "a panda")
        self.assertEqual((result.text, result.finish_reason, result.prompt_tokens), ("a panda", "stop", 40))
        self.assertEqual(request, pb.DescribeImageRequest(images=[b"file"], question="What is it?", max_new_tokens=9,
                                                          temperature=0.5, system_prompt="s"))

    def test_events_of_a_newer_server_are_left_out(self):
        with FakeServer(lambda *_: iter([pb.GenerateImageResponse(), drawn()])) as server, client_of(server) as client:
            self.assertEqual(len(list(client.generate("a cat"))), 1)

    def test_model_info(self):
        with FakeServer() as server, client_of(server, token="secret") as client:
            info = client.model_info()
            self.assertEqual(server.metadata[0]["authorization"], "Bearer secret")
        self.assertEqual((info.name, info.default_size, info.recommended_sizes, info.tasks),
                         ("fake", (256, 128), ((256, 128),), ("generate", "describe")))
        self.assertEqual((info.limits.max_steps, info.default_resolution), (100, "256"))
        self.assertEqual((info.groups[0].state, info.groups[0].world_size), ("serving", 2))

    def test_metadata(self):
        trace = "00-" + 32 * "a" + "-" + 16 * "b" + "-01"
        with FakeServer(lambda *_: iter([drawn()])) as server, client_of(server) as client:
            client.generate("a cat", traceparent=trace).result()
            self.assertEqual(server.metadata[0]["traceparent"], trace)
            self.assertNotIn("authorization", server.metadata[0])
            with self.assertRaisesRegex(lancet.InvalidArgument, "traceparent"):
                client.generate("a cat", traceparent="rubbish")


class ErrorsTest(unittest.TestCase):
    def fail_with(self, code, message, details=None):
        def script(_request, context, _call):
            yield started()
            if details is not None:
                context.set_trailing_metadata([("grpc-status-details-bin", details)])
            context.abort(code, message)

        with FakeServer(script) as server, client_of(server) as client:
            stream = client.generate("a cat")
            with self.assertRaises(lancet.Error) as caught:
                stream.result()
            with self.assertRaises(type(caught.exception)):  # and again
                stream.result()
        return caught.exception

    def test_each_code_has_its_exception(self):
        for kind in (lancet.InvalidArgument, lancet.FailedPrecondition, lancet.ResourceExhausted, lancet.Unavailable,
                     lancet.DeadlineExceeded, lancet.Cancelled, lancet.Unauthenticated, lancet.PermissionDenied,
                     lancet.Unimplemented, lancet.Internal, lancet.DataLoss):
            error = self.fail_with(kind.code, "what went wrong")
            self.assertIs(type(error), kind)
            self.assertEqual(error.message, "what went wrong")
        error = self.fail_with(grpc.StatusCode.ABORTED, "what went wrong")
        self.assertIs(type(error), lancet.Error)
        self.assertEqual(error.code, grpc.StatusCode.ABORTED)

    def test_request_id(self):
        error = self.fail_with(grpc.StatusCode.INTERNAL, "its workers died")
        self.assertEqual(error.request_id, "r1")
        self.assertEqual(str(error), "INTERNAL: its workers died (request r1)")

    def test_retry_hint(self):
        info = _details_pb2.RetryInfo()
        info.retry_delay.FromMilliseconds(2500)
        details = _details_pb2.Status(code=8, message="the queue is full")
        details.details.add(type_url="type.googleapis.com/google.rpc.RetryInfo", value=info.SerializeToString())
        error = self.fail_with(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full", details.SerializeToString())
        self.assertEqual(error.retry_after, 2.5)
        self.assertIn("(try again in 2.5 s)", str(error))
        # One that can't be read is none.
        error = self.fail_with(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full", b"\xff\xff")
        self.assertIsNone(error.retry_after)

    def test_invalid_argument_names_what_is_wrong(self):
        error = self.fail_with(grpc.StatusCode.INVALID_ARGUMENT, "preview.max_side: 8 is not from 16 to 4096")
        self.assertEqual((error.field, error.value, error.limit), ("preview.max_side", "8", "16 to 4096"))
        self.assertIsInstance(error, ValueError)

    def test_values_that_no_message_can_hold(self):
        with lancet.Client() as client:
            for options, field, limit in [
                ({"seed": -1}, "seed", "0 to 18446744073709551615"),
                ({"num_inference_steps": 2**31}, "num_inference_steps", "-2147483648 to 2147483647"),
                ({"sampler": "heun"}, "sampler", "euler, dpmpp_2m"),
                ({"preview": lancet.PreviewOptions(1, method="raw")}, "preview.method", "latent_rgb, vae"),
                ({"guidance_scale": "much"}, "guidance_scale", None),
                ({"guidance_interval": 3}, "guidance_interval", None),
                ({"timeout": 0}, "timeout", None),
            ]:
                with self.subTest(field), self.assertRaises(lancet.InvalidArgument) as caught:
                    client.generate("a cat", **options)
                self.assertEqual(caught.exception.field, field)
                self.assertIn(str(list(options.values())[0]) if limit is None else limit, str(caught.exception))
            with self.assertRaises(lancet.InvalidArgument) as caught:
                client.describe(None)
            self.assertEqual(caught.exception.field, "images")

    def test_no_result(self):
        with FakeServer(lambda *_: iter([started()])) as server, client_of(server) as client:
            with self.assertRaisesRegex(lancet.DataLoss, "without a result"):
                list(client.generate("a cat"))

    def test_deadline(self):
        with FakeServer() as server, client_of(server) as client:
            server.script = hangs(server, started())
            with self.assertRaises(lancet.DeadlineExceeded) as caught:
                client.generate("a cat", timeout=0.3).result()
            self.assertIsInstance(caught.exception, TimeoutError)

    def test_nobody_there(self):
        with FakeServer() as server:
            address = server.address
        with lancet.Client(address, timeout=PATIENCE) as client:
            with self.assertRaises(lancet.Unavailable):
                client.generate("a cat").result()
            with self.assertRaises((lancet.Unavailable, lancet.DeadlineExceeded)):
                client.model_info(timeout=0.3)


class CancellationTest(unittest.TestCase):
    def setUp(self):
        self.server = FakeServer()
        self.addCleanup(self.server.__exit__)
        self.server.script = hangs(self.server, started(), progress(1), progress(2))
        self.client = client_of(self.server)
        self.addCleanup(self.client.close)

    def test_leaving_the_loop_cancels(self):
        stream = self.client.generate("a cat")
        for _ in stream:
            break
        self.assertTrue(self.server.await_call_over())
        with self.assertRaises(lancet.Cancelled):
            stream.result()

    def test_an_exception_in_the_loop_cancels(self):
        with self.assertRaises(KeyError):
            for _ in self.client.generate("a cat"):
                raise KeyError
        self.assertTrue(self.server.await_call_over())

    def test_leaving_the_block_cancels(self):
        with self.client.generate("a cat") as stream:
            events = iter(stream)
            next(events)
        self.assertTrue(self.server.await_call_over())

    def test_from_another_thread(self):
        stream = self.client.generate("a cat")
        events = []
        with self.assertRaises(lancet.Cancelled):
            for event in stream:
                events.append(event)
                if len(events) == 3:
                    threading.Timer(0.05, stream.cancel).start()
        self.assertEqual(len(events), 3)
        self.assertTrue(self.server.await_call_over())

    def test_closing_the_client_cancels(self):
        events = iter(self.client.generate("a cat"))
        self.assertIsInstance(next(events), lancet.Started)
        self.client.close()
        with self.assertRaises(lancet.Cancelled):
            next(events)
        self.assertTrue(self.server.await_call_over())


class RejoinTest(unittest.TestCase):
    def test_the_published_policy_tries_again(self):
        def script(_request, context, call):
            if call < 2:
                context.abort(grpc.StatusCode.UNAVAILABLE, "no healthy group of workers")
            yield from whole_picture()

        with FakeServer(script) as server, client_of(server) as client:
            client.generate("a cat").result()
            self.assertEqual(len(server.requests), 3)

    def broken_twice(self, _request, context, call):
        yield started()
        yield progress(1)
        yield preview(1)
        if call > 0:
            yield progress(2)
            yield preview(2)
        if call < 2:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        yield drawn()

    def test_without_a_key_a_broken_stream_is_an_error(self):
        with FakeServer(self.broken_twice) as server, client_of(server) as client:
            with self.assertRaises(lancet.Unavailable):
                client.generate("a cat").result()
            self.assertEqual(len(server.requests), 1)

    def test_with_a_key_it_is_joined_and_everything_is_said_once(self):
        with FakeServer(self.broken_twice) as server, client_of(server) as client:
            events = list(client.generate("a cat", idempotency_key="key", preview=1))
            self.assertEqual([request.idempotency_key for request in server.requests], ["key"] * 3)
        self.assertEqual([event.step for event in events if isinstance(event, lancet.Preview)], [1, 2])
        self.assertEqual(sum(isinstance(event, lancet.Started) for event in events), 1)
        self.assertIsInstance(events[-1], lancet.ImageResult)

    def test_deltas_are_said_once(self):
        def script(_request, context, call):
            yield started(pb.DescribeImageResponse)
            if call == 0:
                yield delta("ein B")
                yield delta("är")
                context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
            yield delta("ein Bär im")
            yield delta(" Wald")
            yield answered("ein Bär im Wald")

        with FakeServer(script) as server, client_of(server) as client:
            events = list(client.describe(b"file", idempotency_key="key"))
        self.assertEqual([event.text for event in events if isinstance(event, lancet.Delta)],
                         ["ein B", "är", " im", " Wald"])

    def test_a_server_that_stays_away(self):
        def script(_request, context, _call):
            yield started()
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

        # Longer than a stream may last without the time beginning anew, so that it is tried again on any machine.
        with FakeServer(script) as server, client_of(server, rejoin_for=2.5) as client:
            with self.assertRaises(lancet.Unavailable) as caught:
                client.generate("a cat", idempotency_key="key").result()
            self.assertEqual(caught.exception.request_id, "r1")
            self.assertGreater(len(server.requests), 1)

    def test_cancelled_while_it_waits(self):
        def script(_request, context, _call):
            yield started()
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

        with FakeServer(script) as server, client_of(server) as client:
            stream = client.generate("a cat", idempotency_key="key")
            threading.Timer(0.4, stream.cancel).start()
            begin = time.monotonic()
            with self.assertRaises(lancet.Cancelled):
                stream.result()
            self.assertLess(time.monotonic() - begin, PATIENCE / 2)


class PicturesTest(unittest.TestCase):
    def result_of(self, picture):
        response = pb.GenerateImageResponse(result=pb.ImageResult(image=picture))
        with FakeServer(lambda *_: iter([response])) as server, client_of(server) as client:
            return client.generate("a cat").result()

    def test_large_messages(self):
        picture = image(0)
        picture.data += bytes(8 << 20)  # above gRPC's own limit of 4 MiB
        self.assertEqual(len(self.result_of(picture).picture.data), len(picture.data))

    def test_damaged(self):
        picture = image(0)
        picture.data = picture.data[:40]
        with self.assertRaises(lancet.DataLoss):
            self.result_of(picture).image
        picture = image(0)
        picture.width = 64
        with self.assertRaisesRegex(lancet.DataLoss, "announced as 64 x 16"):
            self.result_of(picture).image


if __name__ == "__main__":
    unittest.main()
