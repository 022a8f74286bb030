"""From arguments to the messages of lancet.v1. What is None is left out, so that the server chooses."""

from __future__ import annotations

from typing import Any, Mapping, Optional, TypeVar, Union

from google.protobuf.message import Message

from lancet import errors
from lancet._events import PreviewOptions
from lancet._pictures import ImageSource, read_source
from lancet.v1 import lancet_pb2 as pb

RESOLUTIONS: Mapping[str, int] = {
    "256": pb.RESOLUTION_IMAGE_256RES,
    "512": pb.RESOLUTION_IMAGE_512RES,
    "768": pb.RESOLUTION_IMAGE_768RES,
    "360p": pb.RESOLUTION_VIDEO_360P,
    "480p": pb.RESOLUTION_VIDEO_480P,
}
FORMATS: Mapping[str, int] = {
    "png": pb.IMAGE_FORMAT_PNG,
    "jpeg": pb.IMAGE_FORMAT_JPEG,
    "webp": pb.IMAGE_FORMAT_WEBP,
}
_PRIORITIES: Mapping[str, int] = {
    "low": pb.PRIORITY_LOW,
    "normal": pb.PRIORITY_NORMAL,
    "high": pb.PRIORITY_HIGH,
}
_SAMPLERS: Mapping[str, int] = {"euler": pb.SAMPLER_EULER, "dpmpp_2m": pb.SAMPLER_DPMPP_2M}
_PREVIEW_METHODS: Mapping[str, int] = {
    "latent_rgb": pb.PREVIEW_METHOD_LATENT_RGB,
    "vae": pb.PREVIEW_METHOD_VAE,
}
_ENUMS: Mapping[str, Mapping[str, int]] = {
    "resolution": RESOLUTIONS,
    "output_format": FORMATS,
    "priority": _PRIORITIES,
    "sampler": _SAMPLERS,
    "preview.method": _PREVIEW_METHODS,
    "preview.format": FORMATS,
}

AnyRequest = Union[pb.GenerateImageRequest, pb.EditImageRequest, pb.DescribeImageRequest]
_Request = TypeVar("_Request", pb.GenerateImageRequest, pb.EditImageRequest, pb.DescribeImageRequest)

_INT32 = range(-(2**31), 2**31)
_UINT64 = range(2**64)


def _set(message: Message, field: str, value: Any, name: str = "") -> None:
    """Sets a field, called `name` in errors, unless it is None. InvalidArgument if the message cannot hold the value."""
    if value is None:
        return
    name = name or field
    values = _ENUMS.get(name)
    if values is not None:
        if value not in values:
            raise errors.InvalidArgument(f"{name}: {value} is not from {', '.join(values)}")
        value = values[value]
    elif isinstance(value, int) and not isinstance(value, bool) and not isinstance(getattr(message, field), float):
        allowed = _UINT64 if field == "seed" else _INT32
        if value not in allowed:
            raise errors.InvalidArgument(f"{name}: {value} is not from {allowed[0]} to {allowed[-1]}")
    try:
        setattr(message, field, value)
    except (TypeError, ValueError) as error:
        expected = type(getattr(message, field)).__name__
        raise errors.InvalidArgument(f"{name}: {value!r} is not from the values of {expected}") from error


def _set_guidance(request: Union[pb.GenerateImageRequest, pb.EditImageRequest],
                  interval: Optional[tuple[float, float]]) -> None:
    if interval is None:
        return
    try:
        start, end = interval
    except (TypeError, ValueError) as error:
        raise errors.InvalidArgument(f"guidance_interval: {interval!r} is given; expected (start, end)") from error
    _set(request.guidance_interval, "start", start, "guidance_interval.start")
    _set(request.guidance_interval, "end", end, "guidance_interval.end")


def _set_preview(request: Union[pb.GenerateImageRequest, pb.EditImageRequest],
                 preview: Union[int, PreviewOptions, None]) -> None:
    if preview is None:
        return
    options = preview if isinstance(preview, PreviewOptions) else PreviewOptions(preview)
    for field in ("every_n_steps", "method", "max_side", "format"):
        _set(request.preview, field, getattr(options, field), f"preview.{field}")
    # Present even if all its fields have their defaults, which the server then names.
    request.preview.SetInParent()


def make_request(kind: type[_Request], *, images: Optional[ImageSource] = None,
                 guidance_interval: Optional[tuple[float, float]] = None,
                 preview: Union[int, PreviewOptions, None] = None, **fields: Any) -> _Request:
    """Of any of the three kinds; `fields` are named as in lancet.proto."""
    request = kind()
    if not isinstance(request, pb.GenerateImageRequest):
        request.images.append(read_source(images))  # type: ignore[arg-type]  # InvalidArgument for None
    if not isinstance(request, pb.DescribeImageRequest):
        _set_guidance(request, guidance_interval)
        _set_preview(request, preview)
    for field, value in fields.items():
        _set(request, field, value)
    return request
