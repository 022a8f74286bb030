#!/usr/bin/env python3
"""Draws, edits and describes pictures with a Lancet server. See README.md beside this file."""

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


def follow(responses):
    """Prints what happens to a request as it happens, returns the result event."""
    for response in responses:
        event = response.WhichOneof("event")
        if event == "queued":
            print(f"queued, {response.queued.position} ahead")
        elif event == "started":
            print(f"started with seed {response.started.seed}")
        elif event == "progress":
            print(f"step {response.progress.step} of {response.progress.total_steps}")
        elif event == "delta":
            print(response.delta.text, end="", flush=True)
        elif event == "result":
            return response.result
    raise RuntimeError("the server ended the stream without a result")


def generate(channel, pb, stubs, arguments):
    """Draws a picture from a text."""
    request = pb.GenerateImageRequest(prompt=arguments.prompt, seed=arguments.seed)
    return follow(stubs.ImageServiceStub(channel).GenerateImage(request, timeout=arguments.timeout))


def edit(channel, pb, stubs, arguments):
    """Changes a picture as an instruction says."""
    image = pathlib.Path(arguments.image).read_bytes()
    request = pb.EditImageRequest(images=[image], instruction=arguments.instruction, seed=arguments.seed)
    return follow(stubs.ImageServiceStub(channel).EditImage(request, timeout=arguments.timeout))


def describe(channel, pb, stubs, arguments):
    """Answers a question about a picture; without one, describes it."""
    image = pathlib.Path(arguments.image).read_bytes()
    request = pb.DescribeImageRequest(images=[image], question=arguments.question, seed=arguments.seed)
    return follow(stubs.TextServiceStub(channel).DescribeImage(request, timeout=arguments.timeout))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    tasks = parser.add_subparsers(required=True)
    for task, names in [(generate, ["prompt"]), (edit, ["image", "instruction"]), (describe, ["image"])]:
        command = tasks.add_parser(task.__name__, help=task.__doc__)
        command.set_defaults(task=task)
        for name in names:
            command.add_argument(name)
        if task is describe:
            command.add_argument("question", nargs="?")
        else:
            command.add_argument("--out", default="result.png")
        command.add_argument("--server", default="127.0.0.1:50051")
        command.add_argument("--seed", type=int)
        command.add_argument("--timeout", type=float, default=600, help="seconds")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        pb, stubs = generate_stubs(folder)
        # Pictures can be larger than gRPC's default limit of 4 MB.
        # The published retry policy: UNAVAILABLE is tried again while nothing of the answer has come.
        service_config = (PROTO_ROOT / "lancet" / "v1" / "service_config.json").read_text()
        options = [("grpc.max_receive_message_length", 256 << 20), ("grpc.service_config", service_config)]
        with grpc.insecure_channel(arguments.server, options=options) as channel:
            try:
                result = arguments.task(channel, pb, stubs, arguments)
            except grpc.RpcError as error:
                sys.exit(f"{error.code().name}: {error.details()}")
    if arguments.task is describe:
        # The text itself was printed as it came.
        print(f"\nresult: {result.usage.answer_tokens} tokens, seed {result.seed}")
        return
    pathlib.Path(arguments.out).write_bytes(result.image.data)
    print(f"result: {arguments.out} ({result.image.width} x {result.image.height}, seed {result.seed})")


if __name__ == "__main__":
    main()
