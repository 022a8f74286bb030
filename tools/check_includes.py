#!/usr/bin/env python3
"""Checks that includes point the right way.

usage: check_includes.py [ROOT]

Every folder may include itself and the folders below it, never the other way round; RPC, device and codec libraries
stay in the folders that are about them; generated protobuf headers stay where messages become plain structs; x.cc
includes the x.h beside it first, which proves that the header compiles alone. Prints one line per violation,
"file:line: what", and exits 1 if there is any.
"""

import os
import re
import sys

# folder -> the folders it may include besides itself. The longest matching prefix of a file's path counts.
FOLDERS = {
    "common": (),
    "kernels": ("common",),
    "protos": ("common",),
    # What those who speak gRPC have in common.
    "rpc": ("common",),
    "client": ("common", "protos", "rpc"),
    "coordinator": ("common", "protos", "rpc"),
    # Pure decisions on plain structs.
    "coordinator/request": ("common",),
    "coordinator/schedule": ("common", "coordinator/request"),
    # The engine is a library without RPC, built up in this order.
    "worker/collective": ("common",),
    "worker/collective/device": ("common", "kernels", "worker/collective"),
    "worker/loader": ("common", "kernels"),
    "worker/model": ("common", "kernels", "worker/collective", "worker/loader"),
    "worker/engine": ("common", "kernels", "worker/collective", "worker/loader", "worker/model"),
    "worker/cuda": ("common", "kernels", "worker/collective", "worker/collective/device", "worker/engine", "worker/loader",
                    "worker/model"),
    "worker": ("common", "kernels", "protos", "rpc"),
    # May include anything; nothing includes them.
    "bench": None,
    "tests": None,
    "tools": None,
}

# First part of an outside header's name -> where it may be included.
LIBRARIES = {
    "grpcpp/": ("protos", "rpc", "worker", "coordinator", "client"),
    "grpc/": ("protos", "rpc", "worker", "coordinator", "client"),
    "google/protobuf/": ("protos", "worker", "coordinator", "client"),
    "httplib.h": ("coordinator",),
    "oneapi/dnnl/": ("kernels",),
    "omp.h": ("kernels",),
    "nccl.h": ("worker/collective/device",),
    "png.h": ("coordinator", "client"),
    "jpeglib.h": ("coordinator", "client"),
    "webp/": ("coordinator", "client"),
    "gtest/": (),
    "gmock/": (),
    "benchmark/": (),
}
# Free of RPC although their parent folder is not.
NO_RPC = ("worker/collective", "worker/loader", "worker/model", "worker/engine", "worker/cuda", "coordinator/request",
          "coordinator/schedule")
RPC = ("grpcpp/", "grpc/", "google/protobuf/")

# Where messages become plain structs: conversion, services, stubs.
PB_ALLOWED = re.compile(
    r"^(protos/convert[a-z_]*|coordinator/service/.*|(?:.*/)?grpc_[a-z_]*|(?:.*/)?[a-z_]*_(?:stub|service)|"
    r"client/(?:[a-z_]*client|rpc_values))\.(h|cc)$")

INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]')
SOURCE = re.compile(r"\.(h|cc|cu|cuh)$")


def within(path, folder):
    return path == folder or path.startswith(folder + "/")


def folder_of(path):
    """The longest entry of FOLDERS that holds `path`, or None."""
    holders = [folder for folder in FOLDERS if within(path, folder)]
    return max(holders, key=len) if holders else None


def unrestricted(path):
    folder = folder_of(path)
    return folder is None or FOLDERS[folder] is None


def check_own(path, target):
    """Violation of a repository file including another, or None."""
    if unrestricted(path):
        return None
    source_folder = folder_of(path)
    if any(within(target, top) for top, allowed in FOLDERS.items() if allowed is None):
        return f"{source_folder} includes {target}; nothing includes bench, tests and tools"
    allowed = (source_folder,) + FOLDERS[source_folder]
    if any(within(target, folder) for folder in allowed):
        return None
    return f"{source_folder} includes {target}; it may include {', '.join(allowed)}"


def check_library(path, header):
    """Violation of a repository file including an outside header, or None."""
    if unrestricted(path):
        return None
    for prefix, folders in LIBRARIES.items():
        if not header.startswith(prefix):
            continue
        if not any(within(path, folder) for folder in folders):
            return f"{header} belongs to {', '.join(folders) or 'bench, tests and tools'}"
        if prefix in RPC and any(within(path, folder) for folder in NO_RPC):
            return f"{header}: {folder_of(path)} is free of RPC"
    return None


def check_include(root, path, header):
    """The violation of one include of the file `path` (relative to `root`), or None."""
    if header.endswith(".pb.h") and not unrestricted(path) and not PB_ALLOWED.match(path):
        return f"{header}: generated headers stay in protos/convert*, services and stubs (grpc_*)"
    if header.startswith("lancet/v1/"):
        return check_own(path, "protos/" + header)
    # Outside headers are quoted as well, in the style of Abseil's own code, so only the tree tells them apart.
    own = os.path.isfile(os.path.join(root, header))
    return check_own(path, header) if own else check_library(path, header)


def check_first(root, path, header):
    """The violation of `header` being the first include of the file `path`, or None."""
    own = path[:-len(".cc")] + ".h"
    if path.endswith(".cc") and header != own and os.path.isfile(os.path.join(root, own)):
        return f"{header} stands before {own}"
    return None


def source_files(root):
    for folder in sorted({top.split("/")[0] for top in FOLDERS}):
        for parent, _, names in sorted(os.walk(os.path.join(root, folder))):
            for name in sorted(names):
                if SOURCE.search(name):
                    yield os.path.relpath(os.path.join(parent, name), root)


def check_tree(root):
    """(number of files read, list of violations) of the tree under `root`."""
    violations = []
    count = 0
    for path in source_files(root):
        count += 1
        first = True
        with open(os.path.join(root, path), encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                match = INCLUDE.match(line)
                if not match:
                    continue
                problems = [check_include(root, path, match.group(1))]
                if first:
                    problems.append(check_first(root, path, match.group(1)))
                    first = False
                violations += [f"{path}:{number}: {problem}" for problem in problems if problem]
    return count, violations


def main(arguments):
    if len(arguments) > 1 or (arguments and arguments[0].startswith("-")):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    root = arguments[0] if arguments else os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    count, violations = check_tree(root)
    for violation in violations:
        print(violation)
    if count == 0:
        print(f"no sources under {root}")
        return 1
    print(f"{count} files, {len(violations)} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
