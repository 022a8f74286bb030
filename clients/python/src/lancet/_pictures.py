"""Pictures that come from the server, and those that are sent to it."""

from __future__ import annotations

import dataclasses
import functools
import io
import os
import pathlib
from typing import Union

import PIL.Image
import PIL.ImageOps

from lancet import errors

#: A picture to be changed or described: a PIL image, the bytes of a PNG, JPEG or WebP file, or where one lies.
ImageSource = Union[PIL.Image.Image, bytes, str, "os.PathLike[str]"]

# Far above what a server takes (Limits.max_image_bytes); keeps a wrong path from filling the memory.
_MAX_FILE_BYTES = 256 << 20
# What a PNG can hold as it is.
_PNG_MODES = frozenset(["1", "L", "LA", "P", "RGB", "RGBA"])


@dataclasses.dataclass(frozen=True)
class Picture:
    """An encoded picture. In a notebook it shows itself."""

    format: str  # "png", "jpeg" or "webp"
    width: int  # pixels
    height: int
    data: bytes = dataclasses.field(repr=False)  # the file

    @functools.cached_property
    def image(self) -> PIL.Image.Image:
        """Decoded. DataLoss if the file is damaged or is not of the size that the server said."""
        try:
            image = PIL.Image.open(io.BytesIO(self.data), formats=[self.format.upper()])
            # Before anything is decoded.
            if image.size != (self.width, self.height):
                raise errors.DataLoss(f"image: {image.size[0]} x {image.size[1]}, announced as "
                                      f"{self.width} x {self.height}")
            image.load()
        except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
            raise errors.DataLoss(f"image: a damaged {self.format} file: {error}") from error
        return image

    def save(self, path: Union[str, "os.PathLike[str]"]) -> None:
        """Writes the file as it came, whatever the name ends in; `image.save` is there for other formats."""
        pathlib.Path(path).write_bytes(self.data)

    def for_notebook(self) -> tuple[str, bytes]:
        """MIME type and file that every notebook shows."""
        if self.format != "webp":
            return f"image/{self.format}", self.data
        png = io.BytesIO()
        self.image.save(png, "PNG")
        return "image/png", png.getvalue()

    def _repr_mimebundle_(self, **_options: object) -> dict[str, object]:
        mime_type, data = self.for_notebook()
        return {"text/plain": repr(self), mime_type: data}


def _encode(image: PIL.Image.Image) -> bytes:
    # The server turns files upright by their EXIF; what PIL has opened is turned here.
    upright = PIL.ImageOps.exif_transpose(image) or image
    if upright.mode not in _PNG_MODES:
        upright = upright.convert("RGB")
    png = io.BytesIO()
    upright.save(png, "PNG")
    return png.getvalue()


def read_source(source: ImageSource) -> bytes:
    """The bytes of a file; InvalidArgument for one that is too large, OSError for one that can't be read."""
    if isinstance(source, PIL.Image.Image):
        return _encode(source)
    if isinstance(source, bytes):
        data = source
    elif isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    else:
        raise errors.InvalidArgument(f"images: {type(source).__name__} is given; expected a PIL image, bytes or a path")
    if len(data) > _MAX_FILE_BYTES:
        raise errors.InvalidArgument(f"images: more than {_MAX_FILE_BYTES} bytes; the limit is {_MAX_FILE_BYTES}")
    return data
