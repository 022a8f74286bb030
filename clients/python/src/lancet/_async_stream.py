"""A request under way, for asyncio."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, AsyncIterator, Callable, Generic, Optional

import grpc

from lancet import _notebook, errors
from lancet._call import Call, Event, Result
from lancet._status import from_rpc_error


class AsyncStream(Generic[Event, Result]):
    """As Stream, with `async for`, `async with` and `await stream.result()`. One task uses it; `cancel` may come from any
    of the same loop. A task that is cancelled cancels the request it waits for."""

    def __init__(self, call: Call[Event, Result], open_rpc: Callable[[float], Any]) -> None:
        self._call = call
        self._open_rpc = open_rpc
        self._cancelled = asyncio.Event()
        self._error: Optional[errors.Error] = None
        self._rpc = open_rpc(call.begin_stream())

    def _fail(self, error: errors.Error) -> errors.Error:
        self._error = self._call.named(error)
        return self._error

    async def _reopen(self, error: errors.Error) -> None:
        wait = self._call.wait_before_rejoin(error)
        if wait is None:
            raise self._fail(error)
        try:
            await asyncio.wait_for(self._cancelled.wait(), wait)
        except asyncio.TimeoutError:
            self._rpc = self._open_rpc(self._call.begin_stream())
            return
        raise self._fail(errors.Cancelled("the call was cancelled"))

    async def _advance(self) -> Optional[Event]:
        if self._call.result is not None:
            return None
        if self._error is not None:
            raise self._error
        while True:
            try:
                response = await self._rpc.read()
            except asyncio.CancelledError:
                # gRPC says it of a call that was cancelled, asyncio of the task that waits.
                if self._cancelled.is_set() and not _task_is_cancelled():
                    raise self._fail(errors.Cancelled("the call was cancelled")) from None
                raise
            except grpc.aio.AioRpcError as rpc_error:
                await self._reopen(from_rpc_error(rpc_error))
                continue
            if response is grpc.aio.EOF:
                raise self._fail(errors.DataLoss("the server ended the stream without a result"))
            event = self._call.hear(response)
            if self._call.result is not None:
                await self._drain()
            if event is not None:
                return event

    async def _drain(self) -> None:
        try:
            while await self._rpc.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError:
            pass

    async def __aiter__(self) -> AsyncIterator[Event]:
        try:
            while True:
                event = await self._advance()
                if event is None:
                    return
                yield event
        finally:
            self.cancel()

    async def result(self) -> Result:
        """Waits for the result; events on the way that were not iterated over are dropped."""
        try:
            while await self._advance() is not None:
                pass
        finally:
            self.cancel()
        assert self._call.result is not None
        return self._call.result

    async def show(self) -> Result:
        """As Stream.show; a notebook takes `await` at the top level of a cell."""
        view = _notebook.open_view()
        async for event in self:
            view.update(event)
        return await self.result()

    def cancel(self) -> None:
        """Ends the request; without effect on one that has its result."""
        if self._call.result is None:
            self._cancelled.set()
            self._rpc.cancel()

    async def __aenter__(self) -> AsyncStream[Event, Result]:
        return self

    async def __aexit__(self, _kind: Optional[type[BaseException]], _error: Optional[BaseException],
                        _traceback: Optional[TracebackType]) -> None:
        self.cancel()


def _task_is_cancelled() -> bool:
    # Python 3.10 cannot tell; there a call that was cancelled counts as the reason.
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return cancelling is not None and cancelling() > 0
