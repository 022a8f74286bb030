"""Pictures on their way to the server, and in notebooks."""

import io
import os
import pathlib
import tempfile
import types
import unittest
import unittest.mock

import PIL.Image

import lancet
from fake_server import PATIENCE, FakeServer, answered, delta, image, whole_picture
from lancet._convert import _picture
from lancet._pictures import read_source
from lancet.v1 import lancet_pb2 as pb


def opened(data):
    return PIL.Image.open(io.BytesIO(data))


class SourcesTest(unittest.TestCase):
    def test_files(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "file")
            pathlib.Path(path).write_bytes(b"as it is")
            self.assertEqual(read_source(path), b"as it is")
            self.assertEqual(read_source(pathlib.Path(path)), b"as it is")
            with self.assertRaises(FileNotFoundError):
                read_source(path + "x")
        self.assertEqual(read_source(b"as it is"), b"as it is")
        with self.assertRaisesRegex(lancet.InvalidArgument, "images: list is given"):
            read_source([b"one"])

    def test_modes(self):
        for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "F"):
            with self.subTest(mode):
                sent = opened(read_source(PIL.Image.new(mode, (3, 2))))
                self.assertEqual((sent.format, sent.size), ("PNG", (3, 2)))
        red = opened(read_source(PIL.Image.new("RGB", (1, 1), (255, 0, 0))))
        self.assertEqual(red.getpixel((0, 0)), (255, 0, 0))

    def test_turned_upright(self):
        exif = PIL.Image.Exif()
        exif[0x0112] = 6  # lies on its side
        file = io.BytesIO()
        PIL.Image.new("RGB", (32, 16)).save(file, "JPEG", exif=exif)
        sent = opened(read_source(opened(file.getvalue())))
        self.assertEqual(sent.size, (16, 32))
        self.assertNotIn(0x0112, sent.getexif())


class PictureTest(unittest.TestCase):
    def test_save(self):
        with tempfile.TemporaryDirectory() as folder:
            picture = _picture(image(9))
            picture.save(os.path.join(folder, "x.png"))
            self.assertEqual(pathlib.Path(folder, "x.png").read_bytes(), picture.data)

    def test_shows_itself_in_notebooks(self):
        for format, mime_type in ((pb.IMAGE_FORMAT_PNG, "image/png"), (pb.IMAGE_FORMAT_JPEG, "image/jpeg"),
                                  (pb.IMAGE_FORMAT_WEBP, "image/png")):
            picture = _picture(image(200, format=format))
            bundle = lancet.Preview(step=3, picture=picture)._repr_mimebundle_(include=None, exclude=None)
            self.assertEqual(set(bundle), {"text/plain", mime_type})
            self.assertEqual(opened(bundle[mime_type]).size, (32, 16))
            self.assertNotIn("data=", bundle["text/plain"])


class FakeNotebook:
    """IPython.display, keeping what a cell showed."""

    def __init__(self):
        self.shown = []

    def display(self, view, display_id):
        assert display_id
        self.update(view)
        return self

    def update(self, view):
        self.shown.append(view._repr_mimebundle_())


class ShowTest(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        self.notebook = FakeNotebook()
        module = types.ModuleType("IPython.display")
        module.display = self.notebook.display
        patch = unittest.mock.patch.dict("sys.modules", {"IPython": types.ModuleType("IPython"),
                                                         "IPython.display": module})
        patch.start()
        self.addCleanup(patch.stop)

    def check_picture(self):
        texts = [bundle["text/plain"] for bundle in self.notebook.shown]
        self.assertEqual(texts, ["sent", "queued, 2 ahead, about 2 s", "started with seed 7; an odd size",
                                 "step 2 of 4, 1 s left", "step 2 of 4, 1 s left", "step 4 of 4, 0 s left",
                                 "seed 7, 2.5 s"])
        pages = [bundle["text/html"] for bundle in self.notebook.shown]
        self.assertIn('<progress value="0.500" max="1">', pages[3])
        self.assertIn('<img src="data:image/jpeg;base64,', pages[4])
        self.assertIn('<img src="data:image/png;base64,', pages[-1])
        self.assertNotIn("<progress", pages[-1])

    def test_pictures(self):
        with FakeServer(lambda *_: iter(whole_picture())) as server, \
                lancet.Client(server.address, timeout=PATIENCE) as client:
            self.assertEqual(client.generate("a cat", preview=2).show().seed, 7)
        self.check_picture()

    async def test_pictures_of_asyncio(self):
        with FakeServer(lambda *_: iter(whole_picture())) as server:
            async with lancet.AsyncClient(server.address, timeout=PATIENCE) as client:
                self.assertEqual((await client.generate("a cat", preview=2).show()).seed, 7)
        self.check_picture()

    def test_answers(self):
        with FakeServer(lambda *_: iter([delta("<b>a "), delta("panda"), answered("<b>a panda")])) as server, \
                lancet.Client(server.address, timeout=PATIENCE) as client:
            client.describe(b"file").show()
        self.assertIn("&lt;b&gt;a panda", self.notebook.shown[-1]["text/html"])
        self.assertNotIn("<b>", self.notebook.shown[-1]["text/html"])
        self.assertTrue(self.notebook.shown[-1]["text/plain"].startswith("<b>a panda\nseed 7"))


if __name__ == "__main__":
    unittest.main()
