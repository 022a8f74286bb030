"""The include check finds what it is there to find."""

import os
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools"))
sys.dont_write_bytecode = True
import check_includes  # noqa: E402  (found through the path above)


class CheckIncludesTest(unittest.TestCase):

    def violations(self, files):
        """Violations of a tree with the given {path: text}."""
        with tempfile.TemporaryDirectory() as root:
            for path, text in files.items():
                os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
                with open(os.path.join(root, path), "w", encoding="utf-8") as file:
                    file.write(text)
            count, violations = check_includes.check_tree(root)
            self.assertEqual(count, len(files))
            return violations

    def assert_violation(self, path, include, expected, target=None):
        files = {path: f"// A file.\n#include {include}\n"}
        if target:
            files[target] = ""
        violations = self.violations(files)
        self.assertEqual(len(violations), 1, violations)
        self.assertTrue(violations[0].startswith(f"{path}:2: "), violations[0])
        self.assertIn(expected, violations[0])

    def test_edges_along_the_direction_pass(self):
        self.assertEqual(
            self.violations({
                "common/a.h": "#include <vector>\n#include \"absl/status/status.h\"\n",
                "kernels/cpu/b.cc": "#include \"common/a.h\"\n#include <oneapi/dnnl/dnnl.hpp>\n",
                "kernels/b.h": "#include \"common/a.h\"\n",
                "protos/convert.cc": "#include \"common/a.h\"\n#include \"lancet/v1/worker.pb.h\"\n",
                "worker/engine/c.cc": "#include \"worker/engine/c.h\"\n#include \"kernels/b.h\"\n",
                "worker/engine/c.h": "#include \"common/a.h\"\n",
                "worker/grpc_stream.cc": "#include \"lancet/v1/worker.grpc.pb.h\"\n#include <grpcpp/grpcpp.h>\n",
                "worker/session.cc": "#include \"worker/engine/c.h\"\n",
                "coordinator/service/d.cc": "#include \"lancet/v1/lancet.grpc.pb.h\"\n",
                "tests/worker/e.cc": "#include \"coordinator/service/d.h\"\n#include \"lancet/v1/worker.pb.h\"\n",
            }), [])

    def test_reversed_edges_are_found(self):
        for path, target in (
            ("common/a.h", "kernels/nvfp4.h"),
            ("kernels/a.h", "worker/session.h"),
            ("kernels/a.h", "protos/convert.h"),
            ("protos/convert.cc", "worker/session.h"),
            ("worker/a.cc", "coordinator/group/group.h"),
            ("coordinator/a.cc", "worker/session.h"),
            ("client/a.cc", "coordinator/group/group.h"),
            ("worker/collective/a.cc", "worker/engine/engine.h"),
            ("worker/loader/a.cc", "worker/model/transformer.h"),
            ("worker/engine/a.cc", "worker/session.h"),
            ("worker/engine/a.cc", "protos/convert.h"),
            ("coordinator/request/a.cc", "coordinator/service/server.h"),
        ):
            with self.subTest(path=path, target=target):
                self.assert_violation(path, f'"{target}"', f"includes {target}", target)

    def test_a_source_includes_its_own_header_first(self):
        self.assert_violation("worker/engine/c.cc", '"common/a.h"', "stands before worker/engine/c.h", "worker/engine/c.h")

    def test_nothing_includes_tests_bench_and_tools(self):
        for target in ("tests/testing/fake.h", "bench/a.h", "tools/golden/a.h"):
            with self.subTest(target=target):
                self.assert_violation("worker/a.cc", f'"{target}"', "nothing includes", target)

    def test_libraries_stay_in_their_folders(self):
        for path, header in (
            ("common/a.cc", "<grpcpp/grpcpp.h>"),
            ("worker/engine/a.cc", "<grpcpp/grpcpp.h>"),
            ("coordinator/schedule/a.cc", "<grpcpp/grpcpp.h>"),
            ("worker/model/a.cc", "<oneapi/dnnl/dnnl.hpp>"),
            ("worker/engine/a.cc", "<png.h>"),
            ("common/a.cc", '"google/protobuf/message.h"'),
            ("worker/a.cc", '"gtest/gtest.h"'),
        ):
            with self.subTest(path=path, header=header):
                self.assert_violation(path, header, header.strip('<>"'))

    def test_generated_headers_stay_at_the_edge(self):
        for path in ("worker/session.h", "coordinator/group/group.cc", "client/cli.cc"):
            with self.subTest(path=path):
                self.assert_violation(path, '"lancet/v1/worker.pb.h"', "generated headers stay in")
                self.assert_violation(path, "<google/protobuf/duration.pb.h>", "generated headers stay in")


if __name__ == "__main__":
    unittest.main()
