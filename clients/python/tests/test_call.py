"""When a request is joined again, by a clock of the test's own."""

import unittest

import lancet
from lancet._call import Call


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class CallTest(unittest.TestCase):
    def setUp(self):
        self.clock = Clock()
        self.gone = lancet.Unavailable("Socket closed")

    def call(self, *, timeout=600.0, rejoin_for=60.0, has_key=True):
        return Call(lambda event: event, timeout=timeout, rejoin_for=rejoin_for, has_key=has_key, clock=self.clock)

    def test_waits_double_up_to_two_seconds(self):
        call = self.call()
        call.begin_stream()
        waits = []
        for _ in range(7):
            waits.append(call.wait_before_rejoin(self.gone))
            call.begin_stream()
        self.assertEqual(waits, [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])

    def test_gives_up(self):
        call = self.call(rejoin_for=5.0)
        waits = []
        while True:
            call.begin_stream()
            wait = call.wait_before_rejoin(self.gone)
            if wait is None:
                break
            waits.append(wait)
            self.clock.now += wait
        self.assertLess(sum(waits), 5.0)
        self.assertGreater(sum(waits), 2.5)

    def test_a_stream_that_lasted_begins_anew(self):
        call = self.call(rejoin_for=5.0)
        for _ in range(10):
            call.begin_stream()
            self.clock.now += 3.0
            self.assertEqual(call.wait_before_rejoin(self.gone), 0.1)

    def test_not_beyond_the_deadline(self):
        call = self.call(timeout=2.0)
        self.assertEqual(call.begin_stream(), 2.0)
        self.clock.now += 1.5
        self.assertEqual(call.wait_before_rejoin(self.gone), 0.1)
        self.assertEqual(call.begin_stream(), 0.5)
        self.clock.now += 0.45
        self.assertIsNone(call.wait_before_rejoin(self.gone))
        self.clock.now += 10
        self.assertEqual(call.begin_stream(), 0.0)

    def test_only_a_key_and_only_a_server_that_is_gone(self):
        self.assertIsNone(self.call(has_key=False).wait_before_rejoin(self.gone))
        for error in (lancet.Internal("x"), lancet.DeadlineExceeded("x"), lancet.ResourceExhausted("x"),
                      lancet.Cancelled("x")):
            self.assertIsNone(self.call().wait_before_rejoin(error))

    def test_what_was_heard_is_not_said_again(self):
        call = self.call()

        def hear(*texts):
            call.begin_stream()
            deltas = (call.hear(lancet.Delta(text, 0)) for text in texts)
            return [event.text for event in deltas if event is not None]

        self.assertEqual(hear("ab", "cd"), ["ab", "cd"])
        self.assertEqual(hear("a", "bcde"), ["e"])
        self.assertEqual(hear("abc"), [])  # breaks before it has caught up
        self.assertEqual(hear("abcde", "f"), ["f"])
        queued = lancet.Queued(1)
        started = lancet.Started("r1", 1, 0, 0, 0, 9)
        self.assertIs(call.hear(queued), queued)
        self.assertIs(call.hear(started), started)
        call.begin_stream()
        self.assertIsNone(call.hear(queued))
        self.assertIsNone(call.hear(started))
        self.assertEqual(call.named(lancet.Internal("x")).request_id, "r1")


if __name__ == "__main__":
    unittest.main()
