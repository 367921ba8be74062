#!/usr/bin/env python3
"""Prefill speed: `eval` here and llama-perplexity on the same text, in turns.

    python benches/peers/forward/forward.py --ours target/release/compress-model --model HF_FOLDER \\
        --llama-perplexity llama.cpp/build/bin/llama-perplexity --gguf F16.gguf \\
        --text fixtures/eval_cc0.txt [--folder OUT ...] [--windows 8] [--rounds 5] [--threads 2]

Both read the same windows of 512 tokens and score the second half of each. Ours counts everything
from hidden states to scores; llama.cpp's figure is its own `seconds per pass`, of
the first four windows. Compressed folders
are decoded as they run. Prints medians and their ratio to llama.cpp's.
"""

import argparse
import json
import re
import statistics
import subprocess
from pathlib import Path

# Four windows of 512 tokens: llama-perplexity's default batch.
PASS_TOKENS = 2048


def ours(args, folder):
    command = [args.ours, "eval", folder, "--text", args.text, "--windows", args.windows, "--json",
               "-q", "-t", args.threads]
    report = json.loads(subprocess.check_output([str(c) for c in command]))
    return report["tokens_per_second"]


def llama(args):
    command = [args.llama_perplexity, "-m", args.gguf, "-f", args.text, "-c", 512, "--chunks",
               args.windows, "-t", args.threads]
    run = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True)
    found = re.search(r"([\d.]+) seconds per pass", run.stdout + run.stderr)
    return PASS_TOKENS / float(found[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("ours", "model", "llama-perplexity", "gguf", "text"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--folder", type=Path, action="append", default=[])
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    speeds = {"llama.cpp F16": [], "original": [], **{f.name: [] for f in args.folder}}
    for _ in range(args.rounds):
        speeds["llama.cpp F16"].append(llama(args))
        speeds["original"].append(ours(args, args.model))
        for folder in args.folder:
            speeds[folder.name].append(ours(args, folder))
    peer = statistics.median(speeds["llama.cpp F16"])
    print("| | tokens/s, each round | median | over llama.cpp |")
    print("|---|---|---|---|")
    for name, values in speeds.items():
        rounds, median = ", ".join(f"{v:.0f}" for v in values), statistics.median(values)
        print(f"| {name} | {rounds} | {median:.0f} | {median / peer:.2f} |")


main()
