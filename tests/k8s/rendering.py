"""Renders the overlays with secrets made for the occasion, in a copy of k8s/."""

import os
import shutil
import subprocess
import tempfile

import yaml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OVERLAYS = ("cpu", "hopper", "blackwell")
OPTIONS = ("options/hpa", "options/keda", "monitoring")


class Rendering:
    """A copy of k8s/ with secrets; `dir` is removed by close()."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="lancet_k8s_")
        ignore = shutil.ignore_patterns("files")
        shutil.copytree(os.path.join(ROOT, "k8s"), os.path.join(self.dir, "k8s"), ignore=ignore)
        subprocess.run([os.path.join(self.dir, "k8s", "make_secrets.sh"), "localhost"],
                       check=True, capture_output=True)
        self.secrets = os.path.join(self.dir, "k8s", "secrets", "files")

    def close(self):
        shutil.rmtree(self.dir, ignore_errors=True)

    def render(self, path):
        """The documents of a folder below k8s/."""
        done = subprocess.run(["kubectl", "kustomize", os.path.join(self.dir, "k8s", path)],
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise AssertionError(f"kubectl kustomize {path}: {done.stderr}")
        return [document for document in yaml.safe_load_all(done.stdout) if document]


def by_name(documents, kind, name):
    found = [d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} documents {kind} {name}"
    return found[0]


def pod_templates(documents):
    """(name, pod template, {label: value}) of everything that makes pods."""
    for document in documents:
        if document["kind"] == "Deployment":
            template = document["spec"]["template"]
        elif document["kind"] == "LeaderWorkerSet":
            template = document["spec"]["leaderWorkerTemplate"]["workerTemplate"]
        else:
            continue
        yield document["metadata"]["name"], template, template["metadata"]["labels"]
