"""What is read from the server's messages. The end-to-end test sees that it writes them so."""

import unittest

import lancet


class InvalidArgumentTest(unittest.TestCase):
    def test_messages_of_the_server(self):
        for message, field, value, limit in [
            ("num_inference_steps: 0 is not from 1 to 1000", "num_inference_steps", "0", "1 to 1000"),
            ("guidance_scale: nan is not from 0 to 100", "guidance_scale", "nan", "0 to 100"),
            ("guidance_interval.start: -1 is not from 0 to 1", "guidance_interval.start", "-1", "0 to 1"),
            ("sampler: 9 is not a known value (0 to 2)", "sampler", "9", "0 to 2"),
            ("prompt: 9000 bytes are more than the limit of 8192", "prompt", "9000 bytes", "8192"),
            ("question, system_prompt: 900 tokens are more than the limit of 512", "question, system_prompt",
             "900 tokens", "512"),
            ("width: 70 is not a multiple of 16 (16 to 1024)", "width", "70", "a multiple of 16 (16 to 1024)"),
            ("width, height: 512 x 512 = 262144 pixels are more than the limit of 65536", "width, height",
             "512 x 512 = 262144 pixels", "65536"),
            ("idempotency_key: 129 bytes, the limit is 128", "idempotency_key", "129 bytes", "128"),
            ("images: 2 are given; expected one: the model's released weights cannot tell several apart", "images", "2",
             "one"),
            ("height: not set, but width is 64; set both or neither", "height", None, None),
            ("idempotency_key: it was used with another request before", "idempotency_key", None, None),
            ("something else entirely", None, None, None),
            ("Received message: larger than max", None, None, None),
        ]:
            with self.subTest(message):
                error = lancet.InvalidArgument(message)
                self.assertEqual((error.field, error.value, error.limit), (field, value, limit))
                self.assertEqual(str(error), f"INVALID_ARGUMENT: {message}")

    def test_kinds(self):
        for kind in (lancet.InvalidArgument, lancet.Unavailable, lancet.Internal):
            self.assertTrue(issubclass(kind, lancet.Error))
        self.assertEqual(str(lancet.Unavailable("gone", retry_after=1.5)), "UNAVAILABLE: gone (try again in 1.5 s)")


if __name__ == "__main__":
    unittest.main()
