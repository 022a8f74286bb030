from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor
FINISH_REASON_LENGTH: FinishReason
FINISH_REASON_STOP: FinishReason
FINISH_REASON_UNSPECIFIED: FinishReason
GROUP_STATE_DRAINING: GroupState
GROUP_STATE_FORMING: GroupState
GROUP_STATE_SERVING: GroupState
GROUP_STATE_UNSPECIFIED: GroupState
IMAGE_FORMAT_JPEG: ImageFormat
IMAGE_FORMAT_PNG: ImageFormat
IMAGE_FORMAT_UNSPECIFIED: ImageFormat
IMAGE_FORMAT_WEBP: ImageFormat
PREVIEW_METHOD_LATENT_RGB: PreviewMethod
PREVIEW_METHOD_UNSPECIFIED: PreviewMethod
PREVIEW_METHOD_VAE: PreviewMethod
PRIORITY_HIGH: Priority
PRIORITY_LOW: Priority
PRIORITY_NORMAL: Priority
PRIORITY_UNSPECIFIED: Priority
RESOLUTION_IMAGE_256RES: Resolution
RESOLUTION_IMAGE_512RES: Resolution
RESOLUTION_IMAGE_768RES: Resolution
RESOLUTION_UNSPECIFIED: Resolution
RESOLUTION_VIDEO_360P: Resolution
RESOLUTION_VIDEO_480P: Resolution
SAMPLER_DPMPP_2M: Sampler
SAMPLER_EULER: Sampler
SAMPLER_UNSPECIFIED: Sampler
TASK_DESCRIBE_IMAGE: Task
TASK_EDIT_IMAGE: Task
TASK_GENERATE_IMAGE: Task
TASK_UNSPECIFIED: Task

class DeltaEvent(_message.Message):
    __slots__ = ["text", "token_count"]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    text: str
    token_count: int
    def __init__(self, text: _Optional[str] = ..., token_count: _Optional[int] = ...) -> None: ...

class DescribeImageRequest(_message.Message):
    __slots__ = ["idempotency_key", "images", "max_new_tokens", "priority", "question", "resolution", "seed", "system_prompt", "temperature"]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    RESOLUTION_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_PROMPT_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    idempotency_key: str
    images: _containers.RepeatedScalarFieldContainer[bytes]
    max_new_tokens: int
    priority: Priority
    question: str
    resolution: Resolution
    seed: int
    system_prompt: str
    temperature: float
    def __init__(self, images: _Optional[_Iterable[bytes]] = ..., question: _Optional[str] = ..., system_prompt: _Optional[str] = ..., max_new_tokens: _Optional[int] = ..., temperature: _Optional[float] = ..., seed: _Optional[int] = ..., resolution: _Optional[_Union[Resolution, str]] = ..., priority: _Optional[_Union[Priority, str]] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class DescribeImageResponse(_message.Message):
    __slots__ = ["delta", "queued", "result", "started"]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    delta: DeltaEvent
    queued: QueuedEvent
    result: TextResult
    started: StartedEvent
    def __init__(self, queued: _Optional[_Union[QueuedEvent, _Mapping]] = ..., started: _Optional[_Union[StartedEvent, _Mapping]] = ..., delta: _Optional[_Union[DeltaEvent, _Mapping]] = ..., result: _Optional[_Union[TextResult, _Mapping]] = ...) -> None: ...

class EditImageRequest(_message.Message):
    __slots__ = ["guidance_interval", "guidance_scale", "height", "idempotency_key", "images", "instruction", "num_inference_steps", "output_format", "preview", "priority", "resolution", "sample_condition", "sampler", "seed", "timestep_shift", "width"]
    GUIDANCE_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_SCALE_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    NUM_INFERENCE_STEPS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FORMAT_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    RESOLUTION_FIELD_NUMBER: _ClassVar[int]
    SAMPLER_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_CONDITION_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    TIMESTEP_SHIFT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    guidance_interval: GuidanceInterval
    guidance_scale: float
    height: int
    idempotency_key: str
    images: _containers.RepeatedScalarFieldContainer[bytes]
    instruction: str
    num_inference_steps: int
    output_format: ImageFormat
    preview: PreviewOptions
    priority: Priority
    resolution: Resolution
    sample_condition: bool
    sampler: Sampler
    seed: int
    timestep_shift: float
    width: int
    def __init__(self, images: _Optional[_Iterable[bytes]] = ..., instruction: _Optional[str] = ..., seed: _Optional[int] = ..., num_inference_steps: _Optional[int] = ..., guidance_scale: _Optional[float] = ..., timestep_shift: _Optional[float] = ..., guidance_interval: _Optional[_Union[GuidanceInterval, _Mapping]] = ..., resolution: _Optional[_Union[Resolution, str]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., preview: _Optional[_Union[PreviewOptions, _Mapping]] = ..., output_format: _Optional[_Union[ImageFormat, str]] = ..., priority: _Optional[_Union[Priority, str]] = ..., sampler: _Optional[_Union[Sampler, str]] = ..., sample_condition: bool = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class EditImageResponse(_message.Message):
    __slots__ = ["preview", "progress", "queued", "result", "started"]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    preview: PreviewEvent
    progress: ProgressEvent
    queued: QueuedEvent
    result: ImageResult
    started: StartedEvent
    def __init__(self, queued: _Optional[_Union[QueuedEvent, _Mapping]] = ..., started: _Optional[_Union[StartedEvent, _Mapping]] = ..., progress: _Optional[_Union[ProgressEvent, _Mapping]] = ..., preview: _Optional[_Union[PreviewEvent, _Mapping]] = ..., result: _Optional[_Union[ImageResult, _Mapping]] = ...) -> None: ...

class GenerateImageRequest(_message.Message):
    __slots__ = ["guidance_interval", "guidance_scale", "height", "idempotency_key", "num_inference_steps", "output_format", "preview", "priority", "prompt", "sampler", "seed", "timestep_shift", "width"]
    GUIDANCE_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_SCALE_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    NUM_INFERENCE_STEPS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FORMAT_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    SAMPLER_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    TIMESTEP_SHIFT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    guidance_interval: GuidanceInterval
    guidance_scale: float
    height: int
    idempotency_key: str
    num_inference_steps: int
    output_format: ImageFormat
    preview: PreviewOptions
    priority: Priority
    prompt: str
    sampler: Sampler
    seed: int
    timestep_shift: float
    width: int
    def __init__(self, prompt: _Optional[str] = ..., seed: _Optional[int] = ..., num_inference_steps: _Optional[int] = ..., guidance_scale: _Optional[float] = ..., timestep_shift: _Optional[float] = ..., guidance_interval: _Optional[_Union[GuidanceInterval, _Mapping]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., preview: _Optional[_Union[PreviewOptions, _Mapping]] = ..., output_format: _Optional[_Union[ImageFormat, str]] = ..., priority: _Optional[_Union[Priority, str]] = ..., sampler: _Optional[_Union[Sampler, str]] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class GenerateImageResponse(_message.Message):
    __slots__ = ["preview", "progress", "queued", "result", "started"]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    preview: PreviewEvent
    progress: ProgressEvent
    queued: QueuedEvent
    result: ImageResult
    started: StartedEvent
    def __init__(self, queued: _Optional[_Union[QueuedEvent, _Mapping]] = ..., started: _Optional[_Union[StartedEvent, _Mapping]] = ..., progress: _Optional[_Union[ProgressEvent, _Mapping]] = ..., preview: _Optional[_Union[PreviewEvent, _Mapping]] = ..., result: _Optional[_Union[ImageResult, _Mapping]] = ...) -> None: ...

class GetModelInfoRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class GetModelInfoResponse(_message.Message):
    __slots__ = ["default_height", "default_resolution", "default_width", "fingerprint", "groups", "limits", "name", "quantization", "recommended_sizes", "server_version", "tasks"]
    DEFAULT_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_RESOLUTION_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_WIDTH_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    RECOMMENDED_SIZES_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    default_height: int
    default_resolution: Resolution
    default_width: int
    fingerprint: str
    groups: _containers.RepeatedCompositeFieldContainer[GroupInfo]
    limits: Limits
    name: str
    quantization: str
    recommended_sizes: _containers.RepeatedCompositeFieldContainer[ImageSize]
    server_version: str
    tasks: _containers.RepeatedScalarFieldContainer[Task]
    def __init__(self, name: _Optional[str] = ..., fingerprint: _Optional[str] = ..., quantization: _Optional[str] = ..., default_width: _Optional[int] = ..., default_height: _Optional[int] = ..., recommended_sizes: _Optional[_Iterable[_Union[ImageSize, _Mapping]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., groups: _Optional[_Iterable[_Union[GroupInfo, _Mapping]]] = ..., server_version: _Optional[str] = ..., tasks: _Optional[_Iterable[_Union[Task, str]]] = ..., default_resolution: _Optional[_Union[Resolution, str]] = ...) -> None: ...

class GroupInfo(_message.Message):
    __slots__ = ["active_requests", "device", "name", "state", "world_size"]
    ACTIVE_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    active_requests: int
    device: str
    name: str
    state: GroupState
    world_size: int
    def __init__(self, name: _Optional[str] = ..., world_size: _Optional[int] = ..., state: _Optional[_Union[GroupState, str]] = ..., active_requests: _Optional[int] = ..., device: _Optional[str] = ...) -> None: ...

class GuidanceInterval(_message.Message):
    __slots__ = ["end", "start"]
    END_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    end: float
    start: float
    def __init__(self, start: _Optional[float] = ..., end: _Optional[float] = ...) -> None: ...

class Image(_message.Message):
    __slots__ = ["data", "format", "height", "width"]
    DATA_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    format: ImageFormat
    height: int
    width: int
    def __init__(self, format: _Optional[_Union[ImageFormat, str]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class ImageResult(_message.Message):
    __slots__ = ["image", "model_fingerprint", "seed", "timings"]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    image: Image
    model_fingerprint: str
    seed: int
    timings: Timings
    def __init__(self, image: _Optional[_Union[Image, _Mapping]] = ..., seed: _Optional[int] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., model_fingerprint: _Optional[str] = ...) -> None: ...

class ImageSize(_message.Message):
    __slots__ = ["height", "width"]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    height: int
    width: int
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class InputImage(_message.Message):
    __slots__ = ["height", "resolution", "vision_height", "vision_width", "width"]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    RESOLUTION_FIELD_NUMBER: _ClassVar[int]
    VISION_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    VISION_WIDTH_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    height: int
    resolution: Resolution
    vision_height: int
    vision_width: int
    width: int
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., resolution: _Optional[_Union[Resolution, str]] = ..., vision_width: _Optional[int] = ..., vision_height: _Optional[int] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ["max_image_bytes", "max_image_pixels", "max_image_side", "max_new_tokens", "max_pixels", "max_prompt_bytes", "max_prompt_tokens", "max_queue", "max_side", "max_steps"]
    MAX_IMAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_SIDE_FIELD_NUMBER: _ClassVar[int]
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MAX_PROMPT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_FIELD_NUMBER: _ClassVar[int]
    MAX_SIDE_FIELD_NUMBER: _ClassVar[int]
    MAX_STEPS_FIELD_NUMBER: _ClassVar[int]
    max_image_bytes: int
    max_image_pixels: int
    max_image_side: int
    max_new_tokens: int
    max_pixels: int
    max_prompt_bytes: int
    max_prompt_tokens: int
    max_queue: int
    max_side: int
    max_steps: int
    def __init__(self, max_prompt_bytes: _Optional[int] = ..., max_prompt_tokens: _Optional[int] = ..., max_steps: _Optional[int] = ..., max_side: _Optional[int] = ..., max_pixels: _Optional[int] = ..., max_queue: _Optional[int] = ..., max_new_tokens: _Optional[int] = ..., max_image_bytes: _Optional[int] = ..., max_image_side: _Optional[int] = ..., max_image_pixels: _Optional[int] = ...) -> None: ...

class PreviewEvent(_message.Message):
    __slots__ = ["image", "step"]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    image: Image
    step: int
    def __init__(self, step: _Optional[int] = ..., image: _Optional[_Union[Image, _Mapping]] = ...) -> None: ...

class PreviewOptions(_message.Message):
    __slots__ = ["every_n_steps", "format", "max_side", "method"]
    EVERY_N_STEPS_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    MAX_SIDE_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    every_n_steps: int
    format: ImageFormat
    max_side: int
    method: PreviewMethod
    def __init__(self, every_n_steps: _Optional[int] = ..., method: _Optional[_Union[PreviewMethod, str]] = ..., max_side: _Optional[int] = ..., format: _Optional[_Union[ImageFormat, str]] = ...) -> None: ...

class ProgressEvent(_message.Message):
    __slots__ = ["elapsed", "estimated_remaining", "step", "total_steps"]
    ELAPSED_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_REMAINING_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TOTAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    elapsed: _duration_pb2.Duration
    estimated_remaining: _duration_pb2.Duration
    step: int
    total_steps: int
    def __init__(self, step: _Optional[int] = ..., total_steps: _Optional[int] = ..., elapsed: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., estimated_remaining: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class QueuedEvent(_message.Message):
    __slots__ = ["estimated_wait", "position"]
    ESTIMATED_WAIT_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    estimated_wait: _duration_pb2.Duration
    position: int
    def __init__(self, position: _Optional[int] = ..., estimated_wait: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class StartedEvent(_message.Message):
    __slots__ = ["height", "input", "max_new_tokens", "num_inference_steps", "request_id", "seed", "warnings", "width"]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_INFERENCE_STEPS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    height: int
    input: InputImage
    max_new_tokens: int
    num_inference_steps: int
    request_id: str
    seed: int
    warnings: _containers.RepeatedScalarFieldContainer[str]
    width: int
    def __init__(self, request_id: _Optional[str] = ..., seed: _Optional[int] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., num_inference_steps: _Optional[int] = ..., warnings: _Optional[_Iterable[str]] = ..., max_new_tokens: _Optional[int] = ..., input: _Optional[_Union[InputImage, _Mapping]] = ...) -> None: ...

class TextResult(_message.Message):
    __slots__ = ["finish_reason", "model_fingerprint", "seed", "text", "timings", "usage"]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    MODEL_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    finish_reason: FinishReason
    model_fingerprint: str
    seed: int
    text: str
    timings: Timings
    usage: Usage
    def __init__(self, text: _Optional[str] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., seed: _Optional[int] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., model_fingerprint: _Optional[str] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ["answer", "decode", "denoise", "encode", "input", "prefill", "queue", "total"]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    DECODE_FIELD_NUMBER: _ClassVar[int]
    DENOISE_FIELD_NUMBER: _ClassVar[int]
    ENCODE_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    PREFILL_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    answer: _duration_pb2.Duration
    decode: _duration_pb2.Duration
    denoise: _duration_pb2.Duration
    encode: _duration_pb2.Duration
    input: _duration_pb2.Duration
    prefill: _duration_pb2.Duration
    queue: _duration_pb2.Duration
    total: _duration_pb2.Duration
    def __init__(self, queue: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., prefill: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., denoise: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., decode: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., encode: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., total: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., input: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., answer: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ["answer_tokens", "prompt_tokens"]
    ANSWER_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    answer_tokens: int
    prompt_tokens: int
    def __init__(self, prompt_tokens: _Optional[int] = ..., answer_tokens: _Optional[int] = ...) -> None: ...

class Resolution(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class Sampler(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class PreviewMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class ImageFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class Task(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class GroupState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
