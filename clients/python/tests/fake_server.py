"""A server of lancet.v1 inside the test, which answers as each test says."""

import concurrent.futures
import io
import threading

import grpc
import PIL.Image

from lancet.v1 import lancet_pb2 as pb
from lancet.v1 import lancet_pb2_grpc as stubs

# Far above what anything takes on a busy machine.
PATIENCE = 60.0

_FORMATS = {pb.IMAGE_FORMAT_PNG: "PNG", pb.IMAGE_FORMAT_JPEG: "JPEG", pb.IMAGE_FORMAT_WEBP: "WEBP"}


def image(red, size=(32, 16), format=pb.IMAGE_FORMAT_PNG):
    """A picture of one colour."""
    file = io.BytesIO()
    PIL.Image.new("RGB", size, (red, 0, 0)).save(file, _FORMATS[format])
    return pb.Image(format=format, width=size[0], height=size[1], data=file.getvalue())


def started(kind=pb.GenerateImageResponse, request_id="r1", seed=7):
    return kind(started=pb.StartedEvent(request_id=request_id, seed=seed, width=32, height=16, num_inference_steps=4,
                                        warnings=["an odd size"]))


def progress(step, kind=pb.GenerateImageResponse):
    event = pb.ProgressEvent(step=step, total_steps=4)
    event.elapsed.FromMilliseconds(500 * step)
    event.estimated_remaining.FromMilliseconds(500 * (4 - step))
    return kind(progress=event)


def preview(step, kind=pb.GenerateImageResponse):
    return kind(preview=pb.PreviewEvent(step=step, image=image(10 * step, format=pb.IMAGE_FORMAT_JPEG)))


def drawn(kind=pb.GenerateImageResponse, red=255):
    result = pb.ImageResult(image=image(red), seed=7, model_fingerprint="f00d")
    result.timings.total.FromMilliseconds(2500)
    return kind(result=result)


def delta(text):
    return pb.DescribeImageResponse(delta=pb.DeltaEvent(text=text, token_count=len(text)))


def answered(text):
    result = pb.TextResult(text=text, finish_reason=pb.FINISH_REASON_STOP, seed=7, model_fingerprint="f00d")
    result.usage.prompt_tokens = 40
    result.usage.answer_tokens = len(text)
    return pb.DescribeImageResponse(result=result)


def whole_picture(kind=pb.GenerateImageResponse):
    queued = kind(queued=pb.QueuedEvent(position=2))
    queued.queued.estimated_wait.FromMilliseconds(1500)
    return [queued, started(kind), progress(2, kind), preview(2, kind), progress(4, kind), drawn(kind)]


class FakeServer(stubs.ImageServiceServicer, stubs.TextServiceServicer):
    """`script(request, context, call)`, a generator of responses, answers the call of that number, from 0."""

    def __init__(self, script=None, credentials=None):
        self.script = script
        self.requests = []
        self.metadata = []
        self.calls_over = threading.Semaphore(0)
        self.idle = threading.Event()  # for scripts that hang
        self._server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=8))
        stubs.add_ImageServiceServicer_to_server(self, self._server)
        stubs.add_TextServiceServicer_to_server(self, self._server)
        if credentials is None:
            port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self.port = port
        self.address = f"127.0.0.1:{port}"
        self._server.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.idle.set()
        self._server.stop(None).wait(PATIENCE)

    def _answer(self, request, context):
        call = len(self.requests)
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        context.add_callback(self.calls_over.release)
        yield from self.script(request, context, call)

    GenerateImage = _answer
    EditImage = _answer
    DescribeImage = _answer

    def GetModelInfo(self, request, context):
        self.metadata.append(dict(context.invocation_metadata()))
        info = pb.GetModelInfoResponse(name="fake", fingerprint="f00d", quantization="nvfp4 w4a16", default_width=256,
                                       default_height=128, server_version="1.2.3",
                                       default_resolution=pb.RESOLUTION_IMAGE_256RES,
                                       tasks=[pb.TASK_GENERATE_IMAGE, pb.TASK_DESCRIBE_IMAGE])
        info.recommended_sizes.add(width=256, height=128)
        info.limits.max_steps = 100
        info.groups.add(name="default", world_size=2, state=pb.GROUP_STATE_SERVING, device="cpu")
        return info

    def hang(self):
        """Until the test is over."""
        self.idle.wait(PATIENCE)

    def await_call_over(self):
        """True once a call more has ended, by its client's will or its own."""
        return self.calls_over.acquire(timeout=PATIENCE)
