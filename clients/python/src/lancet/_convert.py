"""From the messages of lancet.v1 to plain values."""

from __future__ import annotations

from typing import Any, Mapping, Optional

from google.protobuf.duration_pb2 import Duration

from lancet import _events as events
from lancet._pictures import Picture
from lancet._requests import FORMATS, RESOLUTIONS
from lancet.v1 import lancet_pb2 as pb

_FORMAT_NAMES: Mapping[int, Any] = {number: name for name, number in FORMATS.items()}
_RESOLUTION_NAMES: Mapping[int, Any] = {number: name for name, number in RESOLUTIONS.items()}
_FINISH_REASONS: Mapping[int, Any] = {pb.FINISH_REASON_STOP: "stop", pb.FINISH_REASON_LENGTH: "length"}
_STATES: Mapping[int, Any] = {
    pb.GROUP_STATE_FORMING: "forming",
    pb.GROUP_STATE_SERVING: "serving",
    pb.GROUP_STATE_DRAINING: "draining",
}
_TASKS: Mapping[int, Any] = {
    pb.TASK_GENERATE_IMAGE: "generate",
    pb.TASK_EDIT_IMAGE: "edit",
    pb.TASK_DESCRIBE_IMAGE: "describe",
}


def _seconds(duration: Duration) -> float:
    return float(duration.seconds + duration.nanos / 1e9)


def _picture(image: pb.Image) -> Picture:
    return Picture(format=_FORMAT_NAMES.get(image.format, "png"), width=image.width, height=image.height,
                   data=image.data)


def _timings(timings: pb.Timings) -> events.Timings:
    return events.Timings(queue=_seconds(timings.queue), prefill=_seconds(timings.prefill),
                          denoise=_seconds(timings.denoise), decode=_seconds(timings.decode),
                          encode=_seconds(timings.encode), total=_seconds(timings.total),
                          input=_seconds(timings.input), answer=_seconds(timings.answer))


def _queued(queued: pb.QueuedEvent) -> events.Queued:
    wait = _seconds(queued.estimated_wait) if queued.HasField("estimated_wait") else None
    return events.Queued(position=queued.position, estimated_wait=wait)


def _started(started: pb.StartedEvent) -> events.Started:
    image = None
    if started.HasField("input"):
        image = events.InputImage(width=started.input.width, height=started.input.height,
                                  resolution=_RESOLUTION_NAMES.get(started.input.resolution),
                                  vision_width=started.input.vision_width, vision_height=started.input.vision_height)
    return events.Started(request_id=started.request_id, seed=started.seed, width=started.width,
                          height=started.height, num_inference_steps=started.num_inference_steps,
                          max_new_tokens=started.max_new_tokens, warnings=tuple(started.warnings), input=image)


def image_event(response: Any) -> Optional[events.ImageEvent]:
    """Of a GenerateImageResponse or EditImageResponse; None for an event of a newer server."""
    kind = response.WhichOneof("event")
    if kind == "queued":
        return _queued(response.queued)
    if kind == "started":
        return _started(response.started)
    if kind == "progress":
        progress = response.progress
        return events.Progress(step=progress.step, total_steps=progress.total_steps,
                               elapsed=_seconds(progress.elapsed),
                               estimated_remaining=_seconds(progress.estimated_remaining))
    if kind == "preview":
        return events.Preview(step=response.preview.step, picture=_picture(response.preview.image))
    if kind == "result":
        result = response.result
        return events.ImageResult(picture=_picture(result.image), seed=result.seed, timings=_timings(result.timings),
                                  model_fingerprint=result.model_fingerprint)
    return None


def text_event(response: Any) -> Optional[events.TextEvent]:
    """Of a DescribeImageResponse; likewise."""
    kind = response.WhichOneof("event")
    if kind == "queued":
        return _queued(response.queued)
    if kind == "started":
        return _started(response.started)
    if kind == "delta":
        return events.Delta(text=response.delta.text, token_count=response.delta.token_count)
    if kind == "result":
        result = response.result
        return events.TextResult(text=result.text, finish_reason=_FINISH_REASONS.get(result.finish_reason, "unknown"),
                                 prompt_tokens=result.usage.prompt_tokens, answer_tokens=result.usage.answer_tokens,
                                 seed=result.seed, timings=_timings(result.timings),
                                 model_fingerprint=result.model_fingerprint)
    return None


def model_info(info: pb.GetModelInfoResponse) -> events.ModelInfo:
    limits = {field.name: getattr(info.limits, field.name) for field in info.limits.DESCRIPTOR.fields}
    known = events.Limits.__dataclass_fields__
    return events.ModelInfo(
        name=info.name, fingerprint=info.fingerprint, quantization=info.quantization,
        default_size=(info.default_width, info.default_height),
        recommended_sizes=tuple((size.width, size.height) for size in info.recommended_sizes),
        default_resolution=_RESOLUTION_NAMES.get(info.default_resolution),
        tasks=tuple(_TASKS[task] for task in info.tasks if task in _TASKS),
        limits=events.Limits(**{name: value for name, value in limits.items() if name in known}),
        groups=tuple(
            events.Group(name=group.name, world_size=group.world_size, state=_STATES.get(group.state, "unknown"),
                         active_requests=group.active_requests, device=group.device) for group in info.groups),
        server_version=info.server_version)
