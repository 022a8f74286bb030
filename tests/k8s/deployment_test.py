"""Starts what the rendered manifests say, command by command, as processes of this machine, and draws a picture through
the Service's port.

usage: deployment_test.py BIN_DIR [unittest options]

Each pod has a network namespace of its own where that is allowed; then one is cut off, too. What a container runtime does
is done here: programs are found in BIN_DIR, mounted secrets are files, fields of the pod become environment variables.
"""

import base64
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import unittest

sys.dont_write_bytecode = True
try:
    from rendering import ROOT, Rendering, by_name
except ImportError as missing:
    print(f"skipped: {missing}; scripts/setup.sh --k8s installs it")
    sys.exit(77)
from hosts import make_hosts  # noqa: E402

MODEL_IN_IMAGE = "/opt/lancet/models/demo"
# Far above what anything takes on a busy machine.
PATIENCE = 120.0


class Pod:
    """One container of a pod as a process."""

    def __init__(self, deployment, name, template, labels, documents):
        self.deployment = deployment
        self.name = name
        self.container = template["spec"]["containers"][0]
        self.dir = os.path.join(deployment.rendering.dir, name)
        os.makedirs(self.dir)
        self.address = deployment.hosts.add(name)
        self.environment = {v["name"]: self.field(v["valueFrom"]["fieldRef"]["fieldPath"], labels)
                            for v in self.container.get("env", [])}
        self.mounts = self.mount(template["spec"]["volumes"], documents)
        self.process = None

    def field(self, path, labels):
        if path == "status.podIP":
            return self.address
        return labels[re.fullmatch(r"metadata\.labels\['(.+)'\]", path).group(1)]

    def mount(self, volumes, documents):
        """{path in the container: path here} of secrets; other volumes are folders that processes need not be told of."""
        secrets = {v["name"]: v["secret"]["secretName"] for v in volumes if "secret" in v}
        mounts = {}
        for mount in self.container["volumeMounts"]:
            if mount["name"] not in secrets:
                continue
            folder = os.path.join(self.dir, mount["name"])
            os.makedirs(folder)
            for key, value in by_name(documents, "Secret", secrets[mount["name"]])["data"].items():
                with open(os.path.join(folder, key), "wb") as file:
                    file.write(base64.b64decode(value))
            mounts[mount["mountPath"] + "/"] = folder + "/"
        return mounts

    def arguments(self):
        for argument in self.container["args"]:
            for name, value in self.environment.items():
                argument = argument.replace(f"$({name})", value)
            for inside, here in self.mounts.items():
                argument = argument.replace(inside, here)
            yield argument.replace(MODEL_IN_IMAGE, os.path.join(ROOT, "models", "demo"))

    def start(self):
        program = os.path.join(self.deployment.bin_dir, self.container["command"][0])
        argv = [program, *self.arguments()]
        if not self.deployment.hosts.resolves:
            argv = self.deployment.without_names(argv, self)
        with open(os.path.join(self.dir, "log"), "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(self.deployment.hosts.command(self.name, argv), stderr=log,
                                            stdin=subprocess.DEVNULL, stdout=log, cwd=self.dir)

    def log(self):
        ended = "" if self.process.poll() is None else f", ended with {self.process.returncode}"
        with open(os.path.join(self.dir, "log"), encoding="utf-8", errors="replace") as file:
            return f"--- {self.name}{ended}\n{file.read()}"

    def terminate(self):
        """Its exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=PATIENCE)

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Deployment:
    """The pods of a rendered overlay, and the names of its Services."""

    def __init__(self, bin_dir, overlay):
        self.bin_dir = bin_dir
        self.rendering = Rendering()
        self.hosts = make_hosts()
        self.pods = {}
        documents = self.rendering.render(overlay)
        self.documents = documents
        template = by_name(documents, "Deployment", "lancet-coordinator")["spec"]["template"]
        self.add("coordinator", template, template["metadata"]["labels"])
        worker_set = by_name(documents, "LeaderWorkerSet", "lancet-group")
        workers = worker_set["spec"]["leaderWorkerTemplate"]
        for group in range(worker_set["spec"]["replicas"]):
            for rank in range(workers["size"]):
                # As the controller labels them.
                labels = workers["workerTemplate"]["metadata"]["labels"] | {
                    "leaderworkerset.sigs.k8s.io/name": worker_set["metadata"]["name"],
                    "leaderworkerset.sigs.k8s.io/group-index": str(group),
                    "leaderworkerset.sigs.k8s.io/worker-index": str(rank),
                }
                self.add(f"rank-{group}-{rank}", workers["workerTemplate"], labels)
        self.hosts.add("client")
        self.hosts.set_names({f"{d['metadata']['name']}.{d['metadata']['namespace']}.svc": self.pods["coordinator"].address
                              for d in documents if d["kind"] == "Service"})

    def add(self, name, template, labels):
        self.pods[name] = Pod(self, name, template, labels, self.documents)

    def port(self, service):
        """The container's port behind the first port of a Service."""
        name = by_name(self.documents, "Service", service)["spec"]["ports"][0]["targetPort"]
        return self.container_port(name)

    def container_port(self, name):
        ports = self.pods["coordinator"].container["ports"]
        return next(port["containerPort"] for port in ports if port["name"] == name)

    def taken_ports(self):
        """Those of the coordinator that somebody else has; a namespace of its own has them all."""
        if self.hosts.resolves:
            return []
        taken = []
        for port in self.pods["coordinator"].container["ports"]:
            with socket.socket() as trial:
                try:
                    trial.bind((self.pods["coordinator"].address, port["containerPort"]))
                except OSError:
                    taken.append(port["containerPort"])
        return taken

    def without_names(self, argv, pod):
        """The same where Services have no names: their addresses, and the name that the certificate must have."""
        coordinator = self.pods["coordinator"]
        argv = [a.replace("=0.0.0.0:", f"={coordinator.address}:") for a in argv]
        if pod is not coordinator:
            argv = [a.replace("lancet-workers.lancet.svc", coordinator.address) for a in argv]
            argv.append("--tls_server_name=lancet-workers.lancet.svc")
        return argv

    def client(self, *arguments):
        """Runs `lancet` as someone who has been given a token."""
        secrets = self.rendering.secrets
        name = "lancet.lancet.svc" if self.hosts.resolves else self.pods["coordinator"].address
        argv = [os.path.join(self.bin_dir, "lancet"), *arguments, f"--endpoint={name}:{self.port('lancet')}", "--tls",
                f"--tls_ca={secrets}/client_ca.crt", f"--token_file={secrets}/client_token"]
        if not self.hosts.resolves:
            argv.append("--tls_server_name=lancet.lancet.svc")
        return subprocess.run(self.hosts.command("client", argv), capture_output=True, text=True, timeout=PATIENCE,
                              check=False, cwd=self.rendering.dir)

    def probe(self, kind):
        """The status of a probe of the coordinator as the kubelet asks it; 0 if nobody answers."""
        probe = self.pods["coordinator"].container[kind]["httpGet"]
        url = f"http://{self.pods['coordinator'].address}:{self.container_port(probe['port'])}{probe['path']}"
        code = ("import sys, urllib.request, urllib.error\n"
                "try: print(urllib.request.urlopen(sys.argv[1], timeout=5).status)\n"
                "except urllib.error.HTTPError as e: print(e.code)\n"
                "except OSError: print(0)\n")
        argv = self.hosts.command("client", [sys.executable, "-c", code, url])
        return int(subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout)

    def logs(self):
        return "\n".join(pod.log() for pod in self.pods.values() if pod.process)

    def close(self):
        for pod in self.pods.values():
            pod.kill()
        self.hosts.close()
        self.rendering.close()


class DeploymentTest(unittest.TestCase):

    bin_dir = ""

    def setUp(self):
        self.deployment = Deployment(self.bin_dir, "overlays/cpu")
        self.addCleanup(self.deployment.close)
        taken = self.deployment.taken_ports()
        if taken:
            self.skipTest(f"something on this machine has the ports {taken}")

    def await_probe(self, kind, status):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if self.deployment.probe(kind) == status:
                return
            time.sleep(0.2)
        self.fail(f"{kind} never said {status}\n{self.deployment.logs()}")

    def draw(self):
        done = self.deployment.client("generate", "a panda in the centre", "--seed=7", "--steps=4", "--out=out")
        self.assertEqual(done.returncode, 0, done.stderr + self.deployment.logs())
        with open(os.path.join(self.deployment.rendering.dir, "out", "result.png"), "rb") as file:
            return file.read()

    def test_the_cpu_overlay_serves(self):
        pods = self.deployment.pods
        ranks = [name for name in pods if name.startswith("rank")]
        self.assertEqual(len(ranks), 2)
        # Startup order does not matter: ranks first, which dial until somebody answers.
        for name in ranks:
            pods[name].start()
        pods["coordinator"].start()
        self.await_probe("livenessProbe", 200)
        self.await_probe("readinessProbe", 200)
        picture = self.draw()
        self.assertTrue(picture.startswith(b"\x89PNG"))

        stranger = os.path.join(self.deployment.rendering.secrets, "client_token")
        with open(stranger, "r+", encoding="utf-8") as file:
            token = file.read()
            file.seek(0)
            file.write("0" * 64)
        refused = self.deployment.client("generate", "a panda", "--out=refused")
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("UNAUTHENTICATED", refused.stderr.upper())
        with open(stranger, "w", encoding="utf-8") as file:
            file.write(token)

        if self.deployment.hosts.resolves:
            # The host of a rank is cut off: the group is gone, and back when the link is.
            self.deployment.hosts.set_link(ranks[1], False)
            self.await_probe("readinessProbe", 503)
            self.assertEqual(self.deployment.probe("livenessProbe"), 200)
            self.deployment.hosts.set_link(ranks[1], True)
            self.await_probe("readinessProbe", 200)
            self.assertEqual(self.draw(), picture)

        for name in [*ranks, "coordinator"]:
            self.assertEqual(pods[name].terminate(), 0, pods[name].log())


if __name__ == "__main__":
    if shutil.which("kubectl") is None:
        print("skipped: no kubectl; scripts/setup.sh --k8s installs it")
        sys.exit(77)
    DeploymentTest.bin_dir = os.path.abspath(sys.argv.pop(1))
    unittest.main()
