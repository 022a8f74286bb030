"""The Python package against a real server.

usage: python_e2e_test.py BIN_DIR [unittest options]
"""

import asyncio
import os
import subprocess
import sys
import unittest

sys.dont_write_bytecode = True
try:
    import lancet
    from live_server import PATIENCE, ROOT, LiveServer
except ImportError as missing:
    print(f"skipped: {missing}; scripts/setup.sh --clients installs it")
    sys.exit(77)

SOURCE = os.path.join(ROOT, "tests", "data", "nano", "golden", "edit_256res.source.png")


class PythonPackageTest(unittest.TestCase):
    bin_dir = ""

    @classmethod
    def setUpClass(cls):
        cls.server = LiveServer(cls.bin_dir)
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__)

    def setUp(self):
        self.client = self.server.client()
        self.addCleanup(self.client.close)

    def test_draws_edits_and_describes(self):
        info = self.client.model_info()
        self.assertEqual((info.name, info.default_size), ("nano", (64, 64)))
        self.assertEqual(info.tasks, ("generate", "edit", "describe"))
        events = list(self.client.generate("a cat", seed=7, num_inference_steps=10, preview=5))
        started = next(event for event in events if isinstance(event, lancet.Started))
        self.assertEqual((started.seed, started.width, started.num_inference_steps), (7, 64, 10))
        self.assertTrue(started.request_id)
        steps = [event.step for event in events if isinstance(event, lancet.Progress)]
        self.assertEqual(steps, sorted(steps))
        # A step takes a millisecond, so a newer preview may have taken the place of an older one.
        previews = [event for event in events if isinstance(event, lancet.Preview)]
        self.assertTrue(previews and all(preview.image.size == (256, 256) for preview in previews))
        drawn = events[-1]
        self.assertEqual((drawn.image.size, drawn.image.format, drawn.seed), ((64, 64), "PNG", 7))
        edited = self.client.edit(drawn.image, "make it blue", seed=7, num_inference_steps=2, width=128, height=128)
        self.assertEqual(edited.result().image.size[0] % 16, 0)
        stream = self.client.describe(SOURCE, "What is it?", max_new_tokens=5)
        text = "".join(event.text for event in stream if isinstance(event, lancet.Delta))
        self.assertEqual(text, stream.result().text)
        self.assertLessEqual(stream.result().answer_tokens, 5)

    def test_asyncio_gives_the_same_bytes(self):
        async def draw():
            async with self.server.client(lancet.AsyncClient) as client:
                return await asyncio.gather(
                    *(client.generate("a cat", seed=seed, num_inference_steps=4).result() for seed in range(3)))

        drawn = asyncio.run(draw())
        for seed, result in enumerate(drawn):
            alone = self.client.generate("a cat", seed=seed, num_inference_steps=4).result()
            self.assertEqual(result.picture.data, alone.picture.data)

    def test_errors_name_field_value_and_limit(self):
        for options, field, value, limit in [
            ({"num_inference_steps": 0}, "num_inference_steps", "0", "1 to 10000"),
            ({"guidance_scale": 101}, "guidance_scale", "101", "0 to 100"),
            ({"guidance_interval": (-1, 1)}, "guidance_interval.start", "-1", "0 to 1"),
            ({"width": 70, "height": 64}, "width", "70", "a multiple of 16 (16 to "),
            ({"width": 16, "height": 1 << 20}, "height", "1048576", "16 to "),
            ({"preview": 0}, "preview.every_n_steps", "0", "1 to 10000"),
            ({"preview": lancet.PreviewOptions(1, max_side=8)}, "preview.max_side", "8", "16 to 4096"),
            ({"prompt": 70000 * "x"}, "prompt", "70000 bytes", ""),
            ({"idempotency_key": 129 * "x"}, "idempotency_key", "129 bytes", "128"),
            ({"width": 64}, "height", None, None),
        ]:
            with self.subTest(field), self.assertRaises(lancet.InvalidArgument) as caught:
                self.client.generate(options.pop("prompt", "a cat"), **options).result()
            error = caught.exception
            self.assertEqual((error.field, error.value), (field, value), error)
            if limit is None:
                self.assertIsNone(error.limit)
            else:
                self.assertTrue(error.limit.startswith(limit), error)
        with self.assertRaises(lancet.InvalidArgument) as caught:
            self.client.describe(b"no picture").result()
        self.assertTrue(caught.exception.field.startswith("images"), caught.exception)

    def test_without_the_token(self):
        with lancet.Client(self.server.address, tls=lancet.Tls(ca=self.server.ca), timeout=PATIENCE) as client:
            with self.assertRaises(lancet.Unauthenticated):
                client.generate("a cat").result()

    def test_leaving_the_loop_frees_the_request(self):
        for event in self.client.generate("a cat", num_inference_steps=10000):
            if isinstance(event, lancet.Progress):
                break
        self.server.await_info(lambda info: sum(group.active_requests for group in info.groups) == 0, "forget it")

    def test_a_coordinator_that_is_killed(self):
        options = {"seed": 7, "num_inference_steps": 150}
        undisturbed = self.client.generate("a cat", **options).result()
        killed = False
        events = []
        for event in self.client.generate("a cat", idempotency_key=f"test-{os.getpid()}", **options):
            events.append(event)
            if not killed and isinstance(event, lancet.Progress):
                self.server.kill_coordinator()
                self.server.start_coordinator()
                killed = True
        self.assertTrue(killed)
        self.assertEqual(sum(isinstance(event, lancet.Started) for event in events), 1)
        self.assertEqual(events[-1].picture.data, undisturbed.picture.data)

    def test_the_example(self):
        def run(*arguments):
            argv = [sys.executable, os.path.join(ROOT, "examples", "python", "client.py"), *arguments, "--server",
                    self.server.address, "--tls_ca", self.server.ca, "--token_file", self.server.token_file]
            done = subprocess.run(argv, cwd=self.server.folder, capture_output=True, text=True, timeout=PATIENCE,
                                  check=False)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr + self.server.logs())
            return done.stdout

        printed = run("generate", "a cat", "--seed", "7", "--out", "cat.png")
        self.assertIn("started with seed 7\n", printed)
        self.assertIn("result: cat.png (64 x 64, seed 7)\n", printed)
        self.assertIn("result: blue.png (", run("edit", "cat.png", "make it blue", "--out", "blue.png"))
        self.assertIn("\nresult: ", run("describe", "blue.png", "What is it?"))


if __name__ == "__main__":
    PythonPackageTest.bin_dir = sys.argv.pop(1)
    unittest.main()
