"""What a server says about a request, in plain values. Times are in seconds, sizes in pixels."""

from __future__ import annotations

import dataclasses
from typing import Literal, Optional, Union

import PIL.Image

from lancet._pictures import Picture

Resolution = Literal["256", "512", "768", "360p", "480p"]
ImageFormat = Literal["png", "jpeg", "webp"]
Priority = Literal["low", "normal", "high"]
Sampler = Literal["euler", "dpmpp_2m"]
PreviewMethod = Literal["latent_rgb", "vae"]


@dataclasses.dataclass(frozen=True)
class PreviewOptions:
    """How previews are made. What is None is left to the server."""

    every_n_steps: int
    method: Optional[PreviewMethod] = None
    max_side: Optional[int] = None
    format: Optional[ImageFormat] = None


@dataclasses.dataclass(frozen=True)
class Queued:
    """The request waits."""

    position: int  # requests ahead
    estimated_wait: Optional[float] = None


@dataclasses.dataclass(frozen=True)
class InputImage:
    """What was made of the picture in a request."""

    width: int
    height: int
    resolution: Optional[Resolution]  # None if the request gave an area
    vision_width: int
    vision_height: int


@dataclasses.dataclass(frozen=True)
class Started:
    """The request was taken up, with every choice that the server made for it. Sizes and steps are 0 for an answer,
    max_new_tokens is 0 for a picture."""

    request_id: str
    seed: int
    width: int
    height: int
    num_inference_steps: int
    max_new_tokens: int
    warnings: tuple[str, ...] = ()
    input: Optional[InputImage] = None


@dataclasses.dataclass(frozen=True)
class Progress:
    """Steps done. Falls back when workers were lost and others go on from an earlier step."""

    step: int
    total_steps: int
    elapsed: float
    estimated_remaining: float


@dataclasses.dataclass(frozen=True)
class Preview:
    """The estimate of the finished picture after `step` steps. In a notebook it shows itself."""

    step: int
    picture: Picture

    @property
    def image(self) -> PIL.Image.Image:
        return self.picture.image

    def _repr_mimebundle_(self, **options: object) -> dict[str, object]:
        return {**self.picture._repr_mimebundle_(**options), "text/plain": repr(self)}


@dataclasses.dataclass(frozen=True)
class Delta:
    """More of an answer; whole characters."""

    text: str
    token_count: int  # of the answer so far


@dataclasses.dataclass(frozen=True)
class Timings:
    """Where the time went; `total` is from arrival to result."""

    queue: float
    prefill: float
    denoise: float
    decode: float
    encode: float
    total: float
    input: float
    answer: float


@dataclasses.dataclass(frozen=True)
class ImageResult:
    """The finished picture. In a notebook it shows itself."""

    picture: Picture
    seed: int
    timings: Timings
    model_fingerprint: str

    @property
    def image(self) -> PIL.Image.Image:
        return self.picture.image

    def save(self, path: str) -> None:
        """Writes the file as it came."""
        self.picture.save(path)

    def _repr_mimebundle_(self, **options: object) -> dict[str, object]:
        return {**self.picture._repr_mimebundle_(**options), "text/plain": repr(self)}


@dataclasses.dataclass(frozen=True)
class TextResult:
    """The finished answer."""

    text: str
    finish_reason: Literal["stop", "length", "unknown"]  # the model ended it, or max_new_tokens did
    prompt_tokens: int
    answer_tokens: int
    seed: int
    timings: Timings
    model_fingerprint: str


#: What the stream of a picture brings, the result last.
ImageEvent = Union[Queued, Started, Progress, Preview, ImageResult]
#: What the stream of an answer brings, the result last.
TextEvent = Union[Queued, Started, Delta, TextResult]


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a server takes."""

    max_prompt_bytes: int
    max_prompt_tokens: int
    max_steps: int
    max_side: int
    max_pixels: int
    max_queue: int
    max_new_tokens: int
    max_image_bytes: int
    max_image_side: int
    max_image_pixels: int


@dataclasses.dataclass(frozen=True)
class Group:
    """One replica of the model."""

    name: str
    world_size: int
    state: Literal["forming", "serving", "draining", "unknown"]
    active_requests: int
    device: str


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """The model of a server, and what can be asked of it."""

    name: str
    fingerprint: str
    quantization: str
    default_size: tuple[int, int]
    recommended_sizes: tuple[tuple[int, int], ...]  # empty: any
    default_resolution: Optional[Resolution]
    tasks: tuple[Literal["generate", "edit", "describe"], ...]
    limits: Limits
    groups: tuple[Group, ...]
    server_version: str
