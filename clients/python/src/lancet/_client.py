"""The two clients."""

from __future__ import annotations

import weakref
from types import TracebackType
from typing import Any, Callable, Optional

import grpc
import grpc.aio

from lancet import _convert
from lancet._async_stream import AsyncStream
from lancet._call import Call, Event, Result
from lancet._events import ImageEvent, ImageResult, ModelInfo, TextEvent, TextResult
from lancet._status import from_rpc_error
from lancet._stream import Stream
from lancet._tasks import Tasks
from lancet.v1 import lancet_pb2 as pb
from lancet.v1 import lancet_pb2_grpc as stubs


def _methods(channel: Any) -> dict[str, Callable[..., Any]]:
    image = stubs.ImageServiceStub(channel)  # type: ignore[no-untyped-call]  # generated
    text = stubs.TextServiceStub(channel)  # type: ignore[no-untyped-call]
    return {"GenerateImage": image.GenerateImage, "EditImage": image.EditImage, "GetModelInfo": image.GetModelInfo,
            "DescribeImage": text.DescribeImage}


class Client(Tasks[Stream[ImageEvent, ImageResult], Stream[TextEvent, TextResult]]):
    """Talks to a server, blocking. Thread-safe; all calls share the connection.

        with lancet.Client("127.0.0.1:50051") as client:
            client.generate("a panda in the centre", seed=7).result().save("panda.png")
    """

    def _open(self) -> None:
        connection = self._connection
        if connection.credentials is None:
            self._channel = grpc.insecure_channel(connection.server, connection.options)
        else:
            self._channel = grpc.secure_channel(connection.server, connection.credentials, connection.options)
        self._stubs = _methods(self._channel)

    def model_info(self, *, timeout: Optional[float] = None) -> ModelInfo:
        """The model, its limits and its workers."""
        try:
            info = self._method("GetModelInfo")(pb.GetModelInfoRequest(), timeout=self._seconds(timeout),
                                                metadata=self._metadata(None))
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        return _convert.model_info(info)

    def close(self) -> None:
        """Ends what is under way, as by cancel()."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, _kind: Optional[type[BaseException]], _error: Optional[BaseException],
                 _traceback: Optional[TracebackType]) -> None:
        self.close()

    def _method(self, name: str) -> Callable[..., Any]:
        return self._stubs[name]

    def _image_stream(self, call: Call[ImageEvent, ImageResult],
                      open_rpc: Callable[[float], Any]) -> Stream[ImageEvent, ImageResult]:
        return Stream(call, open_rpc)

    def _text_stream(self, call: Call[TextEvent, TextResult],
                     open_rpc: Callable[[float], Any]) -> Stream[TextEvent, TextResult]:
        return Stream(call, open_rpc)


class AsyncClient(Tasks[AsyncStream[ImageEvent, ImageResult], AsyncStream[TextEvent, TextResult]]):
    """Talks to a server from asyncio. Belongs to the loop that its first call ran in.

        async with lancet.AsyncClient("127.0.0.1:50051") as client:
            result = await client.generate("a panda in the centre", seed=7).result()
    """

    def _open(self) -> None:
        self._channel: Any = None
        self._stubs: dict[str, Callable[..., Any]] = {}
        # Not every release of grpc.aio ends its calls when their channel is closed.
        self._streams: weakref.WeakSet[AsyncStream[Any, Any]] = weakref.WeakSet()

    async def model_info(self, *, timeout: Optional[float] = None) -> ModelInfo:
        """As Client.model_info."""
        try:
            info = await self._method("GetModelInfo")(pb.GetModelInfoRequest(), timeout=self._seconds(timeout),
                                                      metadata=self._metadata(None))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return _convert.model_info(info)

    async def close(self) -> None:
        """As Client.close."""
        for stream in list(self._streams):
            stream.cancel()
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, _kind: Optional[type[BaseException]], _error: Optional[BaseException],
                        _traceback: Optional[TracebackType]) -> None:
        await self.close()

    def _method(self, name: str) -> Callable[..., Any]:
        # A channel of grpc.aio takes the loop that runs when it is made.
        if self._channel is None:
            connection = self._connection
            if connection.credentials is None:
                self._channel = grpc.aio.insecure_channel(connection.server, connection.options)
            else:
                self._channel = grpc.aio.secure_channel(connection.server, connection.credentials, connection.options)
            self._stubs = _methods(self._channel)
        return self._stubs[name]

    def _image_stream(self, call: Call[ImageEvent, ImageResult],
                      open_rpc: Callable[[float], Any]) -> AsyncStream[ImageEvent, ImageResult]:
        return self._kept(AsyncStream(call, open_rpc))

    def _text_stream(self, call: Call[TextEvent, TextResult],
                     open_rpc: Callable[[float], Any]) -> AsyncStream[TextEvent, TextResult]:
        return self._kept(AsyncStream(call, open_rpc))

    def _kept(self, stream: AsyncStream[Event, Result]) -> AsyncStream[Event, Result]:
        self._streams.add(stream)
        return stream
