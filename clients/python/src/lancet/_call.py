"""One request over all its streams, without input and output: what was heard, and whether to ask again.

A request with an idempotency key whose stream broke is asked for again, and the new stream begins with what was heard
before; what comes out of here says everything once."""

from __future__ import annotations

import time
from typing import Any, Callable, Generic, Optional, TypeVar

from lancet import _events as events
from lancet import errors

Event = TypeVar("Event")
Result = TypeVar("Result")

# Seconds between two attempts to join a request again; doubles.
_FIRST_REJOIN = 0.1
_LAST_REJOIN = 2.0


class Call(Generic[Event, Result]):
    """`convert` makes an event of a response; `timeout` is for all streams together. Not thread-safe."""

    def __init__(self, convert: Callable[[Any], Optional[Event]], *, timeout: float, rejoin_for: float, has_key: bool,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._convert = convert
        self._clock = clock
        self._rejoin_for = rejoin_for
        self._has_key = has_key
        self._deadline = clock() + timeout
        self._wait = _FIRST_REJOIN
        self._give_up = clock() + rejoin_for
        self._began = clock()
        self._request_id: Optional[str] = None
        self._previewed = 0
        # Characters of the answer, and where the present stream is in it.
        self._heard = 0
        self._position = 0
        self.result: Optional[Result] = None

    def begin_stream(self) -> float:
        """A new stream is to be opened; returns the seconds that it may take."""
        self._began = self._clock()
        self._position = 0
        return max(0.0, self._deadline - self._began)

    def hear(self, response: Any) -> Optional[Event]:
        """None if there is nothing new in it. Sets `result` when it comes."""
        event: Any = self._convert(response)
        if isinstance(event, (events.ImageResult, events.TextResult)):
            self.result = event  # type: ignore[assignment]
        elif isinstance(event, events.Queued) and self._request_id is not None:
            return None
        elif isinstance(event, events.Started):
            if self._request_id is not None:
                return None
            self._request_id = event.request_id
        elif isinstance(event, events.Preview):
            if event.step <= self._previewed:
                return None
            self._previewed = event.step
        elif isinstance(event, events.Delta):
            known = min(len(event.text), self._heard - self._position)
            self._position += len(event.text)
            self._heard = max(self._heard, self._position)
            if known == len(event.text):
                return None
            event = events.Delta(text=event.text[known:], token_count=event.token_count)
        return event  # type: ignore[no-any-return]

    def wait_before_rejoin(self, error: errors.Error) -> Optional[float]:
        """Seconds until a stream that broke with `error` is opened again; None if the error is the call's end."""
        now = self._clock()
        # A stream that lasted shows that the server was there.
        if now - self._began > _LAST_REJOIN:
            self._wait = _FIRST_REJOIN
            self._give_up = now + self._rejoin_for
        wait = self._wait
        if not self._has_key or not isinstance(error, errors.Unavailable):
            return None
        if now + wait >= min(self._deadline, self._give_up):
            return None
        self._wait = min(2 * wait, _LAST_REJOIN)
        return wait

    def named(self, error: errors.Error) -> errors.Error:
        """The error with the request's id, if it got one."""
        error.request_id = self._request_id
        return error
