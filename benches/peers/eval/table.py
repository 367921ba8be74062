#!/usr/bin/env python3
"""Markdown table of a model and its compressed folders, by `compress-model eval`.

    python benches/peers/eval/table.py --ours target/release/compress-model --model MODEL \\
        --text fixtures/eval_cc0.txt on-device=FOLDER server=FOLDER server=FOLDER:no-adapters
"""

import argparse
import json
import subprocess


def evaluate(args, folder, *more):
    command = [args.ours, "eval", folder, "--text", args.text, "--json", "-q", *more]
    return json.loads(subprocess.check_output(command))


def main():
    parser = argparse.ArgumentParser()
    for name in ("ours", "model", "text"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("rows", nargs="+", metavar="NAME=FOLDER[:no-adapters]")
    args = parser.parse_args()
    print("| | bits per weight | perplexity | KLD | same top token | tokens/s |")
    print("|---|---|---|---|---|---|")
    original = evaluate(args, args.model)
    ppl = original["scores"]["perplexity"]
    speed = original["tokens_per_second"]
    print(f"| original | 16 | {ppl['mean']:.3f} ± {ppl['error']:.3f} | 0 | 100 % | {speed:.0f} |")
    for row in args.rows:
        name, _, folder = row.partition("=")
        folder, _, without = folder.partition(":")
        flags = ["--no-adapters"] if without else []
        report = evaluate(args, folder, "--against", args.model, *flags)
        alone = evaluate(args, folder, "--windows", "16", *flags)["tokens_per_second"]
        scores = report["scores"]
        ppl, kld = scores["perplexity"], scores["kld"]
        print(f"| {name}{', no adapters' if without else ''} "
              f"| {report['model']['bits_per_weight']:.3f} "
              f"| {ppl['mean']:.3f} ± {ppl['error']:.3f} | {kld['mean']:.4f} ± {kld['error']:.4f} "
              f"| {100 * scores['top1']['mean']:.1f} % | {alone:.0f} |", flush=True)


if __name__ == "__main__":
    main()
