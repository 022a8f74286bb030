#!/usr/bin/env python3
"""Draws one picture with a Lancet server and saves it. See README.md beside this file."""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import grpc

PROTO_ROOT = pathlib.Path(__file__).resolve().parents[2] / "protos"


def generate_stubs(folder):
    """Compiles lancet.proto into `folder` and imports what comes out: (messages, stubs)."""
    plugin = subprocess.run(["which", "grpc_python_plugin"], check=True, capture_output=True, text=True)
    subprocess.run(
        [
            "protoc",
            f"-I{PROTO_ROOT}",
            f"--python_out={folder}",
            f"--grpc_python_out={folder}",
            f"--plugin=protoc-gen-grpc_python={plugin.stdout.strip()}",
            "lancet/v1/lancet.proto",
        ],
        check=True,
    )
    sys.path.insert(0, folder)
    from lancet.v1 import lancet_pb2, lancet_pb2_grpc

    return lancet_pb2, lancet_pb2_grpc


def draw(channel, pb, stubs, prompt, seed, timeout):
    """Runs one request, prints what happens, returns the result event."""
    request = pb.GenerateImageRequest(prompt=prompt, output_format=pb.IMAGE_FORMAT_PNG)
    if seed is not None:
        request.seed = seed
    for response in stubs.ImageServiceStub(channel).GenerateImage(request, timeout=timeout):
        event = response.WhichOneof("event")
        if event == "queued":
            print(f"queued, {response.queued.position} ahead")
        elif event == "started":
            print(f"started with seed {response.started.seed}")
        elif event == "progress":
            print(f"step {response.progress.step} of {response.progress.total_steps}")
        elif event == "result":
            return response.result
    raise RuntimeError("the server ended the stream without a result")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt")
    parser.add_argument("--server", default="127.0.0.1:50051")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--timeout", type=float, default=600, help="seconds")
    parser.add_argument("--out", default="result.png")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        pb, stubs = generate_stubs(folder)
        # Pictures can be larger than gRPC's default limit of 4 MB.
        options = [("grpc.max_receive_message_length", 256 << 20)]
        with grpc.insecure_channel(arguments.server, options=options) as channel:
            try:
                result = draw(channel, pb, stubs, arguments.prompt, arguments.seed, arguments.timeout)
            except grpc.RpcError as error:
                sys.exit(f"{error.code().name}: {error.details()}")
    pathlib.Path(arguments.out).write_bytes(result.image.data)
    print(f"result: {arguments.out} ({result.image.width} x {result.image.height}, seed {result.seed})")


if __name__ == "__main__":
    main()
