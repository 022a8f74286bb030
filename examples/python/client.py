#!/usr/bin/env python3
"""Draws, edits and describes pictures with a Lancet server. See README.md beside this file."""

import argparse
import sys

import lancet


def follow(stream):
    """Prints what happens to a request as it happens, returns the result."""
    for event in stream:
        if isinstance(event, lancet.Queued):
            print(f"queued, {event.position} ahead")
        elif isinstance(event, lancet.Started):
            print(f"started with seed {event.seed}")
        elif isinstance(event, lancet.Progress):
            print(f"step {event.step} of {event.total_steps}")
        elif isinstance(event, lancet.Preview):
            # event.image is a PIL image, as result.image below.
            print(f"preview of step {event.step}: {event.image.width} x {event.image.height}")
        elif isinstance(event, lancet.Delta):
            print(event.text, end="", flush=True)
    return stream.result()


def save(result, path):
    result.save(path)
    print(f"result: {path} ({result.picture.width} x {result.picture.height}, seed {result.seed})")


def generate(client, arguments):
    """Draws a picture from a text."""
    stream = client.generate(arguments.prompt, seed=arguments.seed, preview=arguments.previews)
    save(follow(stream), arguments.out)


def edit(client, arguments):
    """Changes a picture as an instruction says."""
    stream = client.edit(arguments.image, arguments.instruction, seed=arguments.seed, preview=arguments.previews)
    save(follow(stream), arguments.out)


def describe(client, arguments):
    """Answers a question about a picture; without one, describes it."""
    result = follow(client.describe(arguments.image, arguments.question, seed=arguments.seed))
    print(f"\nresult: {result.answer_tokens} tokens, seed {result.seed}")


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
            command.add_argument("--previews", type=int, metavar="N", help="one after every n-th step")
        command.add_argument("--server", default="127.0.0.1:50051")
        command.add_argument("--tls_ca", metavar="FILE", help="roots of the server's certificate; turns TLS on")
        command.add_argument("--token_file", metavar="FILE")
        command.add_argument("--seed", type=int)
        command.add_argument("--timeout", type=float, default=600, help="seconds")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    tls = lancet.Tls(ca=arguments.tls_ca) if arguments.tls_ca else False
    try:
        with lancet.Client(arguments.server, tls=tls, token_file=arguments.token_file,
                           timeout=arguments.timeout) as client:
            arguments.task(client, arguments)
    except (lancet.Error, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
