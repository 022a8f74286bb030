"""A client of Lancet, which draws, edits and describes pictures.

    import lancet

    with lancet.Client("127.0.0.1:50051") as client:
        panda = client.generate("a panda in the centre", seed=7).result()
        for event in client.edit(panda.image, "replace the panda with a tiger", preview=5):
            if isinstance(event, lancet.Preview):
                event.image.show()  # a PIL image
        print(client.describe(panda.image, "What is in the centre?").result().text)

AsyncClient does the same for asyncio. Errors are the exceptions of lancet.errors."""

from lancet._async_stream import AsyncStream
from lancet._channel import Tls
from lancet._client import AsyncClient, Client
from lancet._events import (Delta, Group, ImageEvent, ImageFormat, ImageResult, InputImage, Limits, ModelInfo, Preview,
                            PreviewMethod, PreviewOptions, Priority, Progress, Queued, Resolution, Sampler, Started,
                            TextEvent, TextResult, Timings)
from lancet._pictures import ImageSource, Picture
from lancet._stream import Stream
from lancet.errors import (Cancelled, DataLoss, DeadlineExceeded, Error, FailedPrecondition, Internal, InvalidArgument,
                           PermissionDenied, ResourceExhausted, Unauthenticated, Unavailable, Unimplemented)

__version__ = "0.1.0"

__all__ = [
    "AsyncClient", "AsyncStream", "Cancelled", "Client", "DataLoss", "DeadlineExceeded", "Delta", "Error",
    "FailedPrecondition", "Group", "ImageEvent", "ImageFormat", "ImageResult", "ImageSource", "InputImage", "Internal",
    "InvalidArgument", "Limits", "ModelInfo", "PermissionDenied", "Picture", "Preview", "PreviewMethod",
    "PreviewOptions", "Priority", "Progress", "Queued", "Resolution", "ResourceExhausted", "Sampler", "Started",
    "Stream", "TextEvent", "TextResult", "Timings", "Tls", "Unauthenticated", "Unavailable", "Unimplemented",
]
