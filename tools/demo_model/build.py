#!/usr/bin/env python3
"""The demo model from picture to checkpoint: every stage in order, each left out when its result is there.

  build.py --work WORK --programs build/release/bin          the whole model (a GPU for training, 25 minutes)
  build.py --work WORK --programs build/release/bin --smoke  a tiny one on a CPU, to see that everything fits together

Training may be stopped (--minutes a run) and goes on where it was; the exit status is 3 until it is complete. WORK/source
gets the F32 checkpoint in the public layout, WORK/model what a server takes.
"""

import argparse
import os
import subprocess
import sys

import export
import glyphs
import prepare

HERE = os.path.dirname(os.path.abspath(__file__))
MORE_TO_DO = 3  # exit status of a trainer whose time was up

# A model that is good for nothing, small enough for one slow core.
TINY_PREPARE = {"nameless_limit": 8, "corpus_size": 1500, "hidden": 256, "layers": 2, "inner": 256, "tower_depth": 2}
TINY_AUTOENCODER = ["--base", "8", "--square", "2", "--wide", "1", "--max_steps", "3", "--workers", "0"]
TINY_TRUNK = [
    "--square",
    "2",
    "--wide",
    "1",
    "--edits",
    "1",
    "--pictures",
    "1",
    "--max_steps",
    "3",
    "--workers",
    "0",
    "--preview_seconds",
    "0",
]
TINY_REQUESTS = ["--prompts", "2", "--edits", "1", "--questions", "1"]


class Stages:
    def __init__(self, arguments):
        self.arguments, self.work = arguments, arguments.work

    def path(self, *parts):
        return os.path.join(self.work, *parts)

    def tool(self, name, *options):
        return self.run([sys.executable, os.path.join(HERE, name), *options])

    def program(self, name, *options):
        return self.run([os.path.join(self.arguments.programs, name), *options])

    def run(self, command):
        print("+ " + " ".join(command), flush=True)
        status = subprocess.run(command, check=False).returncode
        if status not in (0, MORE_TO_DO):
            raise SystemExit(f"{command[0]}: exit status {status}")
        return status

    def prepare(self):
        if not os.path.exists(self.path("words.json")):
            prepare.prepare(self.work, self.arguments.font, **(TINY_PREPARE if self.arguments.smoke else {}))

    def train(self, name, result, tiny):
        """Runs a trainer unless its plan is complete; SystemExit(3) when there is more to do."""
        if os.path.exists(self.path(result)) and os.path.exists(self.path(name + ".done")):
            return
        options = ["--work", self.work, "--minutes", str(self.arguments.minutes)]
        options += tiny if self.arguments.smoke else (["--compile"] if self.arguments.compile else [])
        status = self.tool(f"train_{name}.py", *options)
        if status == MORE_TO_DO:
            raise SystemExit(MORE_TO_DO)
        with open(self.path(name + ".done"), "w", encoding="utf-8"):
            pass

    def requests(self):
        """Requests for calibration (of training's pairs) and for judging (unseen ones)."""
        tiny = TINY_REQUESTS if self.arguments.smoke else []
        if not os.path.exists(self.path("calibration", "questions.json")):
            few = tiny or ["--prompts", "24", "--edits", "4", "--questions", "6"]
            self.tool("make_requests.py", "--out", self.path("calibration"), "--training", "--seed", "7", *few)
        if not os.path.exists(self.path("unseen", "questions.json")):
            self.tool("make_requests.py", "--out", self.path("unseen"), *tiny)
        if not os.path.exists(self.path("unknown", "questions.json")):
            few = ["--prompts", "1" if self.arguments.smoke else "60", "--edits", "0", "--questions", "0"]
            self.tool("make_requests.py", "--out", self.path("unknown"), "--unknown_share", "1", *few)

    def quantise(self):
        """WORK/model by lancet-calibrate and lancet-quantize, colours of previews by lancet-fit-preview."""
        source, model = self.path("source"), self.path("model")
        size = export.export(self.work, source)
        print(f"{source}: {size / 1e6:.1f} MB beside the trunk's source")
        if not os.path.exists(os.path.join(self.arguments.programs, "lancet-quantize")):
            print("no lancet-quantize among the programs: min/max scales instead, without calibration")
            export.export(self.work, model, plain=True)
        elif not os.path.exists(os.path.join(model, "Lance_3B-NVFP4", "nvfp4_state_dict.safetensors")):
            statistics = self.path("statistics.safetensors")
            self.program(
                "lancet-calibrate",
                "--model_dir",
                source,
                "--requests",
                self.path("calibration"),
                "--output",
                statistics,
                *(["--steps", "2"] if self.arguments.smoke else []),
            )
            self.program(
                "lancet-quantize",
                "--source",
                os.path.join(source, "Lance_3B"),
                "--output",
                model,
                "--calibration",
                statistics,
            )
        self.program(
            "lancet-fit-preview",
            "--model_dir",
            model,
            *(["--steps", "3", "--side", "64"] if self.arguments.smoke else []),
        )
        self.program("lancet-inspect", "--model_dir", model)

    def judge(self):
        """The source by torch, the product by lancet-eval where it is at hand, both solvers."""
        unseen = self.path("unseen")
        few = ["--steps", "2"] if self.arguments.smoke else []
        self.tool("evaluate.py", "--model_dir", self.path("source"), "--source", "--requests", unseen, *few)
        if not self.arguments.smoke:
            self.tool(
                "evaluate.py",
                "--model_dir",
                self.path("source"),
                "--source",
                "--requests",
                unseen,
                "--solver",
                "dpmpp_2m",
                "--steps",
                "12",
            )
        for requests in (unseen, self.path("unknown")):
            self.tool("evaluate.py", "--model_dir", self.path("model"), "--requests", requests, *few)
        if os.path.exists(os.path.join(self.arguments.programs, "lancet-eval")):
            self.program(
                "lancet-eval",
                "--model_dir",
                self.path("model"),
                "--requests",
                unseen,
                "--judge",
                os.path.join(HERE, "..", "eval", "demo_judge.json"),
                *few,
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, help="folder for everything; made when it is not there")
    parser.add_argument("--programs", required=True, help="folder of the built programs")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--minutes", type=float, default=9.0, help="of training in one run of each trainer")
    parser.add_argument("--compile", action="store_true", help="torch.compile in the trainers")
    parser.add_argument("--font", default=glyphs.FONT)
    parser.add_argument("--until", choices=("prepare", "train", "quantise", "judge"), default="judge")
    arguments = parser.parse_args()
    stages = Stages(arguments)
    stages.prepare()
    if arguments.until == "prepare":
        return 0
    stages.train("autoencoder", "Wan2.2_VAE.safetensors", TINY_AUTOENCODER)
    stages.train("trunk", "trunk.safetensors", TINY_TRUNK)
    if arguments.until == "train":
        return 0
    stages.requests()
    stages.quantise()
    if arguments.until == "judge":
        stages.judge()
    return 0


if __name__ == "__main__":
    sys.exit(main())
