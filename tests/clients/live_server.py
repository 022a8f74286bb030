"""A coordinator and a worker of the nano model as real processes, with TLS and a token, for one test file."""

import os
import shutil
import signal
import subprocess
import tempfile
import time

import lancet

if shutil.which("openssl") is None:
    raise ImportError("no openssl, which makes the certificates")

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
# Far above what anything takes on a busy machine, so that only a hang meets it.
PATIENCE = 120.0

_MODEL = [f"--model_dir={ROOT}/tests/data/nano", f"--lancet_json={ROOT}/tests/integration/nano.lancet.json"]


class LiveServer:
    """Use it as a context manager. Folder, address, TLS files and token file tell how to come in."""

    def __init__(self, bin_dir):
        self.bin_dir = os.path.realpath(bin_dir)
        self._temporary = tempfile.TemporaryDirectory(prefix="lancet_clients_")
        self.folder = self._temporary.name
        self.ca = self.path("server.pem")
        self.token_file = self.path("token")
        self._ports = ["0", "0"]
        self._processes = {}
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
             "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout",
             self.path("server.key"), "-out", self.ca], check=True, capture_output=True, timeout=PATIENCE)
        self.write("token", "a-token-for-tests")
        # SHA-256 of it.
        digest = subprocess.run(["openssl", "dgst", "-sha256", "-r", self.token_file], check=True, capture_output=True,
                                text=True, timeout=PATIENCE).stdout.split()[0]
        self.write("tokens", f"tester sha256:{digest} max_concurrent=8\n")

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(self.path(name), 0o600)

    def __enter__(self):
        try:
            self.start_coordinator()
            self._start("worker", ["lancet-worker", *_MODEL, f"--coordinator=127.0.0.1:{self._ports[1]}", "--threads=1",
                                   "--max_pixels=65536"])
            self.await_serving()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._temporary.cleanup()

    @property
    def address(self):
        return f"127.0.0.1:{self._ports[0]}"

    def client(self, kind=lancet.Client, **options):
        return kind(self.address, tls=lancet.Tls(ca=self.ca), token_file=self.token_file,
                    **{"timeout": PATIENCE, **options})

    def start_coordinator(self):
        """On the ports of the one before, if there was one."""
        port_file = self.path("ports")
        if os.path.exists(port_file):
            os.remove(port_file)
        process = self._start("coordinator", [
            "lancet-coordinator", *_MODEL, "--max_steps=10000", f"--listen=127.0.0.1:{self._ports[0]}",
            f"--worker_listen=127.0.0.1:{self._ports[1]}", f"--port_file={port_file}", f"--tls_cert={self.ca}",
            f"--tls_key={self.path('server.key')}", f"--token_file={self.path('tokens')}"])
        end = time.monotonic() + PATIENCE
        while not os.path.exists(port_file):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the coordinator did not say its ports\n{self.logs()}")
            time.sleep(0.02)
        with open(port_file, encoding="utf-8") as file:
            self._ports = file.read().split()[:2]

    def kill_coordinator(self):
        self._processes["coordinator"].send_signal(signal.SIGKILL)
        self._processes["coordinator"].wait()

    def await_serving(self):
        self.await_info(lambda info: any(group.state == "serving" for group in info.groups), "serve")

    def await_info(self, condition, what):
        """Until what the server says of itself fulfils the condition."""
        end = time.monotonic() + PATIENCE
        with self.client() as client:
            while not condition(client.model_info()):
                if time.monotonic() > end:
                    raise RuntimeError(f"the server did not {what}\n{self.logs()}")
                time.sleep(0.05)

    def logs(self):
        text = []
        for name in self._processes:
            with open(self.path(f"{name}.log"), encoding="utf-8", errors="replace") as file:
                text.append(f"--- {name}\n{file.read()}")
        return "\n".join(text)

    def _start(self, name, argv):
        with open(self.path(f"{name}.log"), "a", encoding="utf-8") as log:
            process = subprocess.Popen([os.path.join(self.bin_dir, argv[0]), *argv[1:]], stdin=subprocess.DEVNULL,
                                       stdout=log, stderr=log, cwd=self.folder)
        self._processes[name] = process
        return process
