"""A request under way, for code that blocks."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Callable, Generic, Iterator, Optional

import grpc

from lancet import _notebook, errors
from lancet._call import Call, Event, Result
from lancet._status import from_rpc_error


class Stream(Generic[Event, Result]):
    """Iterate over it for the events, the result last, or ask for the result alone.

    Leaving the loop before its end, or the `with` block, cancels the request. One thread uses it; `cancel` may come from
    any."""

    def __init__(self, call: Call[Event, Result], open_rpc: Callable[[float], Any]) -> None:
        self._call = call
        self._open_rpc = open_rpc
        self._cancelled = threading.Event()
        self._error: Optional[errors.Error] = None
        self._rpc = open_rpc(call.begin_stream())

    def _fail(self, error: errors.Error) -> errors.Error:
        self._error = self._call.named(error)
        return self._error

    def _reopen(self, error: errors.Error) -> None:
        """Waits and joins the request again; raises what it fails with instead if that is the end."""
        wait = self._call.wait_before_rejoin(error)
        if wait is None:
            raise self._fail(error)
        if not self._cancelled.wait(wait):
            self._rpc = self._open_rpc(self._call.begin_stream())
        # A cancel() that came meanwhile saw the last stream alone.
        if self._cancelled.is_set():
            self._rpc.cancel()
            raise self._fail(errors.Cancelled("the call was cancelled"))

    def _advance(self) -> Optional[Event]:
        """The next event; None after the last one."""
        if self._call.result is not None:
            return None
        if self._error is not None:
            raise self._error
        while True:
            try:
                event = self._call.hear(next(self._rpc))
            except StopIteration:
                raise self._fail(errors.DataLoss("the server ended the stream without a result")) from None
            except grpc.RpcError as rpc_error:
                self._reopen(from_rpc_error(rpc_error))
                continue
            if self._call.result is not None:
                self._drain()
            if event is not None:
                return event

    def _drain(self) -> None:
        # The result is there; all that is left is the status.
        try:
            for _ in self._rpc:
                pass
        except grpc.RpcError:
            pass

    def __iter__(self) -> Iterator[Event]:
        try:
            while True:
                event = self._advance()
                if event is None:
                    return
                yield event
        finally:
            self.cancel()

    def result(self) -> Result:
        """Waits for the result; events on the way that were not iterated over are dropped."""
        try:
            while self._advance() is not None:
                pass
        finally:
            self.cancel()
        assert self._call.result is not None
        return self._call.result

    def show(self) -> Result:
        """In a notebook: progress, previews and the growing answer in place, then the result, which is returned."""
        view = _notebook.open_view()
        for event in self:
            view.update(event)
        return self.result()

    def cancel(self) -> None:
        """Ends the request; without effect on one that has its result."""
        if self._call.result is None:
            self._cancelled.set()
            self._rpc.cancel()

    def __enter__(self) -> Stream[Event, Result]:
        return self

    def __exit__(self, _kind: Optional[type[BaseException]], _error: Optional[BaseException],
                 _traceback: Optional[TracebackType]) -> None:
        self.cancel()
