"""The image's own scripts: lancet-ranks and lancet-fetch-model.

usage: image_test.py BIN_DIR [unittest options]     (BIN_DIR as of the other tests here; nothing of it is needed)
"""

import functools
import http.server
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
IMAGE = os.path.join(ROOT, "k8s", "image")
PATIENCE = 60.0

# Writes its pid and flags to a file of its own, and ends as the file "end-RANK" says.
RANK = r"""#!/bin/bash
rank=${1#--rank=}
echo "$$ $*" >> "$DIR/rank-$rank"
trap 'exit 0' TERM
while [[ ! -e $DIR/end-$rank ]]; do sleep 0.02; done
code=$(< "$DIR/end-$rank")
rm "$DIR/end-$rank"
exit "$code"
"""


class Folder(unittest.TestCase):

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="lancet_image_")
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, text):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)

    def read(self, name):
        with open(self.path(name), encoding="utf-8") as file:
            return file.read()


class RanksTest(Folder):

    def setUp(self):
        super().setUp()
        self.write("rank.sh", RANK)
        os.chmod(self.path("rank.sh"), 0o755)
        self.group = subprocess.Popen([os.path.join(IMAGE, "lancet-ranks"), "2", self.path("rank.sh")],
                                      env=os.environ | {"DIR": self.dir})
        self.addCleanup(self.end)
        for rank in range(2):
            self.await_starts(rank, 1)

    def end(self):
        if self.group.poll() is None:
            self.group.kill()
            self.group.wait()

    def await_starts(self, rank, count):
        """The lines that a rank has written once it was started so often."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            name = f"rank-{rank}"
            lines = self.read(name).splitlines() if os.path.exists(self.path(name)) else []
            if len(lines) >= count:
                return lines
            time.sleep(0.02)
        self.fail(f"rank {rank} was not started {count} times")
        return []

    def test_each_rank_has_its_device_and_comes_back_alone(self):
        self.assertTrue(self.await_starts(1, 1)[0].endswith("--rank=1 --world_size=2 --device_ordinal=1"))
        self.write("end-1", "1")
        self.await_starts(1, 2)
        self.assertEqual(len(self.await_starts(0, 1)), 1)
        self.group.send_signal(signal.SIGTERM)
        self.assertEqual(self.group.wait(PATIENCE), 0)
        for rank in range(2):
            for line in self.await_starts(rank, 1):
                self.assertFalse(os.path.exists(f"/proc/{line.split()[0]}"))

    def test_wrong_flags_and_bad_models_end_the_pod(self):
        self.write("end-0", "3")
        self.assertEqual(self.group.wait(PATIENCE), 3)


class FetchModelTest(Folder):

    def setUp(self):
        super().setUp()
        self.write("hub/a.bin", "weights")
        self.write("hub/b.json", "{}")
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=self.path("hub"))
        handler.log_message = lambda *_: None
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def fetch(self, lines):
        self.write("list", "".join(f"{line}\n" for line in lines))
        return subprocess.run([os.path.join(IMAGE, "lancet-fetch-model"), self.path("model"), self.path("list")],
                              capture_output=True, text=True, check=False, timeout=PATIENCE)

    def test_fetches_what_is_missing_and_leaves_the_rest(self):
        self.write("model/x/b.json", "mine")
        done = self.fetch([f"x/a.bin {self.url}/a.bin", f"x/b.json {self.url}/b.json"])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.read("model/x/a.bin"), "weights")
        self.assertEqual(self.read("model/x/b.json"), "mine")
        self.assertFalse(os.path.exists(self.path("model/x/a.bin.part")))

    def test_says_what_it_cannot_fetch(self):
        for line, code in (("x/a.bin https://hub/OWNER/a.bin", 2), ("../a.bin http://h/a", 2), ("/a http://h/a", 2),
                           ("a", 2), (f"x/c.bin {self.url}/c.bin", 22)):
            done = self.fetch([line])
            self.assertEqual(done.returncode, code, (line, done.stderr))
            self.assertTrue(done.stderr)


if __name__ == "__main__":
    if shutil.which("curl") is None:
        print("skipped: no curl; scripts/setup.sh --k8s installs it")
        sys.exit(77)
    sys.argv.pop(1)
    unittest.main()
