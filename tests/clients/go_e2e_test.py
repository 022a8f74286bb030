"""The example in Go, built from the distribution's packages, against a real server.

usage: go_e2e_test.py BIN_DIR BUILD_DIR [unittest options]
"""

import os
import shutil
import subprocess
import sys
import unittest

sys.dont_write_bytecode = True
GOCODE = "/usr/share/gocode"  # where Debian's packages put Go libraries
if shutil.which("go") is None or not os.path.isdir(os.path.join(GOCODE, "src", "google.golang.org", "grpc")):
    print("skipped: no Go or no gRPC for it; scripts/setup.sh --clients installs them")
    sys.exit(77)
try:
    from live_server import PATIENCE, ROOT, LiveServer
except ImportError as missing:
    print(f"skipped: {missing}; scripts/setup.sh --clients installs it")
    sys.exit(77)


def build(folder):
    """As it is built without modules, as nothing can be downloaded; packages that were compiled before are kept."""
    workspace = os.path.join(folder, "workspace")
    os.makedirs(os.path.join(workspace, "src"), exist_ok=True)
    link = os.path.join(workspace, "src", "lancet.example")
    if os.path.islink(link):
        os.remove(link)
    os.symlink(os.path.join(ROOT, "examples", "go"), link)
    program = os.path.join(folder, "lancet_example")
    environment = os.environ | {"GO111MODULE": "off", "GOFLAGS": "", "GOPATH": f"{workspace}:{GOCODE}",
                                "GOCACHE": os.path.join(folder, "cache")}
    argv = ["go", "build", "-o", program, "lancet.example"]
    done = subprocess.run(argv, cwd=link, env=environment, capture_output=True, text=True, timeout=500, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(argv)} failed:\n{done.stdout}{done.stderr}")
    return program


class GoExampleTest(unittest.TestCase):
    bin_dir = ""
    program = ""

    @classmethod
    def setUpClass(cls):
        cls.server = LiveServer(cls.bin_dir)
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__)

    def run_example(self, *arguments, code=0, token=True):
        argv = [self.program, "-server", self.server.address, "-tls_ca", self.server.ca]
        if token:
            argv += ["-token_file", self.server.token_file]
        done = subprocess.run([*argv, *arguments], cwd=self.server.folder, capture_output=True, text=True,
                              timeout=PATIENCE, check=False)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr + self.server.logs())
        return done.stdout + done.stderr

    def test_draws_edits_and_describes(self):
        printed = self.run_example("-seed", "7", "-previews", "5", "-out", "cat", "generate", "a cat")
        self.assertIn("started with seed 7\n", printed)
        self.assertRegex(printed, r"step \d+ of 30\n")
        self.assertRegex(printed, r"preview: cat/preview_\d\d\.jpg\n")
        self.assertIn("result: cat/result.png (64 x 64, seed 7)\n", printed)
        # The same picture as through the package in Python.
        with self.server.client() as client:
            with open(self.server.path("cat/result.png"), "rb") as file:
                self.assertEqual(file.read(), client.generate("a cat", seed=7).result().picture.data)
        printed = self.run_example("-out", "blue", "edit", "cat/result.png", "make it blue")
        self.assertIn("result: blue/result.png (", printed)
        self.assertRegex(self.run_example("describe", "blue/result.png", "What is it?"), r"\nresult: \d+ tokens, seed")

    def test_errors(self):
        self.assertIn("Unauthenticated: ", self.run_example("generate", "a cat", code=1, token=False))
        self.assertIn("InvalidArgument: preview.every_n_steps: -1 is not from 1 to 10000",
                      self.run_example("-previews", "-1", "generate", "a cat", code=1))
        self.assertIn("DeadlineExceeded: ", self.run_example("-timeout", "1ms", "generate", "a cat", code=1))
        self.assertIn("usage: ", self.run_example("draw", code=2))


if __name__ == "__main__":
    GoExampleTest.bin_dir = sys.argv.pop(1)
    GoExampleTest.program = build(os.path.realpath(sys.argv.pop(1)))
    unittest.main()
