"""The manifests render, say what a cluster of a current release accepts, and agree with each other and the programs.

usage: manifests_test.py BIN_DIR [unittest options]

Schemas are those of the package kubernetes-validate where it is installed (pip install kubernetes-validate); the rest is
checked in any case. Exits with 77 where kubectl is missing.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import unittest

sys.dont_write_bytecode = True
try:
    import jsonschema
    import yaml  # noqa: F401  (rendering needs it)
except ImportError as missing:
    print(f"skipped: {missing}; scripts/setup.sh --k8s installs it")
    sys.exit(77)
try:
    import kubernetes_validate
except ImportError:
    kubernetes_validate = None

from rendering import OPTIONS, OVERLAYS, ROOT, Rendering, by_name, pod_templates  # noqa: E402

# Kinds that a cluster has by itself; the others come with what the README says to install.
FOREIGN = ("LeaderWorkerSet", "ScaledObject")
# A Secret that pods refer to as optional.
OPTIONAL_SECRETS = {"lancet-hub"}


class ManifestsTest(unittest.TestCase):

    bin_dir = ""

    @classmethod
    def setUpClass(cls):
        cls.rendering = Rendering()
        cls.rendered = {f"overlays/{name}": cls.rendering.render(f"overlays/{name}") for name in OVERLAYS}
        cls.rendered |= {path: cls.rendering.render(path) for path in OPTIONS}
        with open(os.path.join(ROOT, "tests", "k8s", "leaderworkerset.schema.json"), encoding="utf-8") as file:
            cls.worker_set_schema = json.load(file)

    @classmethod
    def tearDownClass(cls):
        cls.rendering.close()

    def each_overlay(self):
        for path, documents in self.rendered.items():
            if path.startswith("overlays/"):
                with self.subTest(path=path):
                    yield path, documents

    def test_every_document_is_of_its_schema(self):
        for path, documents in self.rendered.items():
            for document in documents:
                with self.subTest(path=path, kind=document["kind"], name=document["metadata"]["name"]):
                    self.assertEqual(document["metadata"].get("namespace", "lancet"), "lancet")
                    if document["kind"] == "LeaderWorkerSet":
                        jsonschema.validate(document, self.worker_set_schema)
                    if kubernetes_validate and document["kind"] not in FOREIGN:
                        kubernetes_validate.validate(document, "1.37", strict=True)

    def test_pod_templates_of_worker_sets_are_of_the_schema_of_pods(self):
        for _, documents in self.each_overlay():
            worker_set = by_name(documents, "LeaderWorkerSet", "lancet-group")
            template = worker_set["spec"]["leaderWorkerTemplate"]["workerTemplate"]
            self.assertEqual(template["spec"]["containers"][0]["image"].split(":")[0], "ghcr.io/lancet/lancet")
            if kubernetes_validate:
                pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "rank"}, "spec": template["spec"]}
                kubernetes_validate.validate(pod, "1.37", strict=True)

    def test_whatever_pods_refer_to_is_there(self):
        for _, documents in self.each_overlay():
            names = {(d["kind"], d["metadata"]["name"]) for d in documents}
            for pod, template, _ in pod_templates(documents):
                spec = template["spec"]
                self.assertIn(("ServiceAccount", spec["serviceAccountName"]), names)
                mounted = set()
                for container in spec.get("initContainers", []) + spec["containers"]:
                    mounted |= {mount["name"] for mount in container["volumeMounts"]}
                self.assertEqual(mounted, {volume["name"] for volume in spec["volumes"]}, pod)
                for volume in spec["volumes"]:
                    for field, kind, key in (("secret", "Secret", "secretName"), ("configMap", "ConfigMap", "name"),
                                             ("persistentVolumeClaim", "PersistentVolumeClaim", "claimName")):
                        if field in volume:
                            self.assertIn((kind, volume[field][key]), names)
                for container in spec.get("initContainers", []):
                    for variable in container.get("env", []):
                        self.assertIn(variable["valueFrom"]["secretKeyRef"]["name"], OPTIONAL_SECRETS)
                        self.assertTrue(variable["valueFrom"]["secretKeyRef"]["optional"])

    def test_services_budgets_and_policies_select_pods_and_their_ports(self):
        for _, documents in self.each_overlay():
            pods = [(labels, {port["name"] for c in template["spec"]["containers"] for port in c.get("ports", [])})
                    for _, template, labels in pod_templates(documents)]

            def ports_of(selector, pods=pods):
                self.assertTrue(selector)
                selected = [ports for labels, ports in pods if selector.items() <= labels.items()]
                self.assertEqual(len(selected), 1, selector)
                return selected[0]

            for document in documents:
                spec = document.get("spec", {})
                if document["kind"] == "Service":
                    ports = ports_of(spec["selector"])
                    self.assertLessEqual({port["targetPort"] for port in spec["ports"]}, ports)
                elif document["kind"] == "PodDisruptionBudget":
                    ports_of(spec["selector"]["matchLabels"])
                elif document["kind"] == "NetworkPolicy":
                    ports = ports_of(spec["podSelector"]["matchLabels"])
                    for rule in spec["ingress"]:
                        named = {port["port"] for port in rule.get("ports", [])}
                        self.assertLessEqual(named, ports)

    def test_pods_have_no_privileges(self):
        for _, documents in self.each_overlay():
            for _, template, _ in pod_templates(documents):
                spec = template["spec"]
                self.assertFalse(spec["automountServiceAccountToken"])
                self.assertTrue(spec["securityContext"]["runAsNonRoot"])
                self.assertEqual(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault")
                for container in spec.get("initContainers", []) + spec["containers"]:
                    security = container["securityContext"]
                    self.assertFalse(security["allowPrivilegeEscalation"])
                    self.assertTrue(security["readOnlyRootFilesystem"])
                    self.assertEqual(security["capabilities"]["drop"], ["ALL"])
                    self.assertIn("memory", container["resources"]["limits"])

    def test_programs_know_every_flag(self):
        known = {}
        for program in ("lancet-coordinator", "lancet-worker"):
            text = subprocess.run([os.path.join(self.bin_dir, program), "--help"], capture_output=True, text=True,
                                  check=False).stdout
            known[program] = set(re.findall(r"^\s+--([a-z_0-9]+)", text, re.MULTILINE))
            self.assertIn("model_dir", known[program])
        for _, documents in self.each_overlay():
            for _, template, _ in pod_templates(documents):
                for container in template["spec"]["containers"]:
                    program = container["command"][-1]
                    flags = {re.match(r"--([a-z_0-9]+)", argument).group(1) for argument in container["args"]}
                    self.assertLessEqual(flags, known[program])

    def test_the_coordinator_drains_before_it_is_killed(self):
        for _, documents in self.each_overlay():
            spec = by_name(documents, "Deployment", "lancet-coordinator")["spec"]["template"]["spec"]
            container = spec["containers"][0]
            drain = next(a for a in container["args"] if a.startswith("--drain_timeout="))
            seconds = int(re.fullmatch(r"--drain_timeout=(\d+)s", drain).group(1))
            sleep = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
            self.assertGreater(spec["terminationGracePeriodSeconds"], seconds + sleep)

    def test_autoscaling_scales_the_groups(self):
        target = {"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet", "name": "lancet-group"}
        hpa = by_name(self.rendered["options/hpa"], "HorizontalPodAutoscaler", "lancet-group")
        keda = by_name(self.rendered["options/keda"], "ScaledObject", "lancet-group")
        self.assertEqual(hpa["spec"]["scaleTargetRef"], target)
        self.assertEqual(keda["spec"]["scaleTargetRef"], target)


if __name__ == "__main__":
    if shutil.which("kubectl") is None:
        print("skipped: no kubectl; scripts/setup.sh --k8s installs it")
        sys.exit(77)
    ManifestsTest.bin_dir = sys.argv.pop(1)
    unittest.main()
