#!/usr/bin/env python3
"""The same figures by compress-model and by llama.cpp's perplexity tool, and how far apart.

    python benches/peers/eval/agree.py --ours target/release/compress-model \\
        --llama-perplexity llama.cpp/build/bin/llama-perplexity --gguf F16.gguf \\
        --model MODEL --text fixtures/eval_cc0.txt --work DIR [--windows N] OUT...

For each compressed folder OUT: `eval OUT --against MODEL` here; there, `decompress --dtype f16`,
conversion to GGUF by to_gguf.py, --kl-divergence against the logits of the F16 GGUF. DIR holds
these files while it runs: 49,152 logits of two bytes a scored token are 25 MB a window.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

FIGURES = {
    "perplexity": r"Mean PPL\(Q\) +: +([\d.]+)",
    "original": r"Mean PPL\(base\) +: +([\d.]+)",
    "kld": r"Mean +KLD: +([\d.]+)",
    "kld median": r"Median +KLD: +([\d.]+)",
    "kld 99 %": r"99\.0% +KLD: +([\d.]+)",
    "top 1, %": r"Same top p: +([\d.]+)",
    "rms change of p, %": r"RMS Δp +: +([\d.]+)",
}


def output(*command):
    run = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{run.stdout}{run.stderr}")
    return run.stdout + run.stderr


def ours(args, folder):
    command = [args.ours, "eval", folder, "--against", args.model, "--text", args.text]
    command += ["--json", "-q"] + (["--windows", args.windows] if args.windows else [])
    scores = json.loads(subprocess.check_output([str(c) for c in command]))["scores"]
    return {
        "perplexity": scores["perplexity"]["mean"],
        "original": scores["perplexity_against"]["mean"],
        "kld": scores["kld"]["mean"],
        "kld median": scores["kld"]["median"],
        "kld 99 %": scores["kld"]["p99"],
        "top 1, %": 100 * scores["top1"]["mean"],
        "rms change of p, %": 100 * scores["probability_change_rms"]["mean"],
    }


def theirs(args, folder, logits):
    plain, gguf = args.work / "plain", args.work / "plain.gguf"
    output(args.ours, "decompress", folder, "-o", plain, "--dtype", "f16", "--overwrite", "-q")
    converter = Path(__file__).with_name("to_gguf.py")
    output(sys.executable, converter, args.gguf, plain, gguf)
    text = output(args.llama_perplexity, "-m", gguf, "--kl-divergence-base", logits,
                  "--kl-divergence", "-c", 512, "-t", args.threads)
    gguf.unlink()
    return {name: float(re.search(pattern, text)[1]) for name, pattern in FIGURES.items()}


def main():
    parser = argparse.ArgumentParser()
    for name in ("ours", "llama-perplexity", "gguf", "model", "text", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--windows", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("folders", type=Path, nargs="+")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    logits = args.work / "logits.kld"
    chunks = ["--chunks", args.windows] if args.windows else []
    output(args.llama_perplexity, "-m", args.gguf, "-f", args.text, "-c", 512, "-t", args.threads,
           "--kl-divergence-base", logits, *chunks)
    print("| folder | figure | compress-model | llama.cpp | difference |\n|---|---|---|---|---|")
    for folder in args.folders:
        here, there = ours(args, folder), theirs(args, folder, logits)
        for name in FIGURES:
            difference = 100 * (here[name] / there[name] - 1)
            print(f"| {folder.name} | {name} | {here[name]:.5g} | {there[name]:.5g} "
                  f"| {difference:+.2f} % |", flush=True)
    logits.unlink()


if __name__ == "__main__":
    main()
