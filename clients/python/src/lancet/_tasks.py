"""What can be asked of a server, the same for both clients."""

from __future__ import annotations

import abc
import math
import re
from typing import Any, Callable, Generic, Optional, TypeVar, Union

from lancet import _convert, errors
from lancet._call import Call
from lancet._channel import Connection, Path, Tls, make_connection
from lancet._events import (ImageEvent, ImageFormat, ImageResult, PreviewOptions, Priority, Resolution, Sampler,
                            TextEvent, TextResult)
from lancet._pictures import ImageSource
from lancet._requests import AnyRequest, make_request
from lancet.v1 import lancet_pb2 as pb

ImageStream = TypeVar("ImageStream")
TextStream = TypeVar("TextStream")

# version-trace-span-flags, each in hexadecimal digits (W3C Trace Context).
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def check_seconds(field: str, value: float) -> float:
    if not (0 < value < math.inf):
        raise errors.InvalidArgument(f"{field}: {value} is not from above 0 to any finite number of seconds")
    return float(value)


class Tasks(abc.ABC, Generic[ImageStream, TextStream]):
    """Arguments are those of lancet.proto, which says what they mean and which values they take; what is None is chosen by
    the server, which reports it.

    `timeout` in seconds is for the whole request, from the call to the result; None: the client's. With an
    `idempotency_key` (a UUID, say) a request survives a broken connection and a server that is started anew: it is joined
    again, and neither drawn nor reported twice; but the server works on for half a minute when the caller has left.
    `traceparent` makes the request a part of a W3C trace."""

    def __init__(self, server: str = "127.0.0.1:50051", *, tls: Union[bool, Tls] = False,
                 token: Optional[str] = None, token_file: Optional[Path] = None, timeout: float = 600.0,
                 rejoin_for: float = 60.0) -> None:
        """`server` is host:port or unix:path; `token` a bearer token, or the file that holds it; `timeout` what calls have
        that name none; `rejoin_for` how long a request with an idempotency key tries to reach a server that is gone.
        InvalidArgument names what can't be used. The connection is made on first use."""
        self._connection: Connection = make_connection(server, tls, token, token_file)
        self._timeout = check_seconds("timeout", timeout)
        self._rejoin_for = check_seconds("rejoin_for", rejoin_for)
        self._open()

    def generate(self, prompt: str, *, seed: Optional[int] = None, num_inference_steps: Optional[int] = None,
                 guidance_scale: Optional[float] = None, timestep_shift: Optional[float] = None,
                 guidance_interval: Optional[tuple[float, float]] = None, width: Optional[int] = None,
                 height: Optional[int] = None, preview: Union[int, PreviewOptions, None] = None,
                 output_format: Optional[ImageFormat] = None, priority: Optional[Priority] = None,
                 sampler: Optional[Sampler] = None, idempotency_key: Optional[str] = None,
                 timeout: Optional[float] = None, traceparent: Optional[str] = None) -> ImageStream:
        """Draws a picture from a text. `preview=5` asks for a preview after every fifth step."""
        request = make_request(pb.GenerateImageRequest, prompt=prompt, seed=seed,
                               num_inference_steps=num_inference_steps, guidance_scale=guidance_scale,
                               timestep_shift=timestep_shift, guidance_interval=guidance_interval, width=width,
                               height=height, preview=preview, output_format=output_format, priority=priority,
                               sampler=sampler, idempotency_key=idempotency_key)
        return self._draw("GenerateImage", request, timeout, traceparent)

    def edit(self, image: ImageSource, instruction: str, *, seed: Optional[int] = None,
             num_inference_steps: Optional[int] = None, guidance_scale: Optional[float] = None,
             timestep_shift: Optional[float] = None, guidance_interval: Optional[tuple[float, float]] = None,
             resolution: Optional[Resolution] = None, width: Optional[int] = None, height: Optional[int] = None,
             preview: Union[int, PreviewOptions, None] = None, output_format: Optional[ImageFormat] = None,
             priority: Optional[Priority] = None, sampler: Optional[Sampler] = None,
             sample_condition: Optional[bool] = None, idempotency_key: Optional[str] = None,
             timeout: Optional[float] = None, traceparent: Optional[str] = None) -> ImageStream:
        """Changes a picture as an instruction says."""
        request = make_request(pb.EditImageRequest, images=image, instruction=instruction, seed=seed,
                               num_inference_steps=num_inference_steps, guidance_scale=guidance_scale,
                               timestep_shift=timestep_shift, guidance_interval=guidance_interval,
                               resolution=resolution, width=width, height=height, preview=preview,
                               output_format=output_format, priority=priority, sampler=sampler,
                               sample_condition=sample_condition, idempotency_key=idempotency_key)
        return self._draw("EditImage", request, timeout, traceparent)

    def describe(self, image: ImageSource, question: Optional[str] = None, *, system_prompt: Optional[str] = None,
                 max_new_tokens: Optional[int] = None, temperature: Optional[float] = None,
                 seed: Optional[int] = None, resolution: Optional[Resolution] = None,
                 priority: Optional[Priority] = None, idempotency_key: Optional[str] = None,
                 timeout: Optional[float] = None, traceparent: Optional[str] = None) -> TextStream:
        """Answers a question about a picture; without one, describes it."""
        request = make_request(pb.DescribeImageRequest, images=image, question=question, system_prompt=system_prompt,
                               max_new_tokens=max_new_tokens, temperature=temperature, seed=seed,
                               resolution=resolution, priority=priority, idempotency_key=idempotency_key)
        call: Call[TextEvent, TextResult] = self._make_call(_convert.text_event, request, timeout)
        return self._text_stream(call, self._opener("DescribeImage", request, traceparent))

    def _draw(self, method: str, request: AnyRequest, timeout: Optional[float],
              traceparent: Optional[str]) -> ImageStream:
        call: Call[ImageEvent, ImageResult] = self._make_call(_convert.image_event, request, timeout)
        return self._image_stream(call, self._opener(method, request, traceparent))

    def _make_call(self, convert: Callable[[Any], Any], request: AnyRequest, timeout: Optional[float]) -> Call[Any, Any]:
        return Call(convert, timeout=self._seconds(timeout), rejoin_for=self._rejoin_for,
                    has_key=bool(request.idempotency_key))

    def _seconds(self, timeout: Optional[float]) -> float:
        return self._timeout if timeout is None else check_seconds("timeout", timeout)

    def _metadata(self, traceparent: Optional[str]) -> list[tuple[str, str]]:
        if traceparent is not None and _TRACEPARENT.fullmatch(traceparent) is None:
            raise errors.InvalidArgument(f"traceparent: {traceparent!r} is not one of W3C Trace Context")
        return self._connection.metadata(traceparent)

    def _opener(self, method: str, request: AnyRequest, traceparent: Optional[str]) -> Callable[[float], Any]:
        """Sends the request, with the seconds that it may take, every time it is called."""
        metadata = self._metadata(traceparent)
        start = self._method(method)
        return lambda timeout: start(request, timeout=timeout, metadata=metadata)

    @abc.abstractmethod
    def _open(self) -> None:
        """Prepares what calls need."""

    @abc.abstractmethod
    def _method(self, name: str) -> Callable[..., Any]:
        """Of the stubs, by its name in lancet.proto."""

    @abc.abstractmethod
    def _image_stream(self, call: Call[ImageEvent, ImageResult], open_rpc: Callable[[float], Any]) -> ImageStream: ...

    @abc.abstractmethod
    def _text_stream(self, call: Call[TextEvent, TextResult], open_rpc: Callable[[float], Any]) -> TextStream: ...
