#!/usr/bin/env python3
"""Size against quality: this program, llama.cpp's quantiser, MLX and HQQ on one model and text.

    python benches/peers/quality/quality.py --ours target/release/compress-model --model HF_FOLDER \\
        --text fixtures/eval_cc0.txt --calibration fixtures/calib_cc0.txt --work DIR \\
        [--llama BIN_DIR --gguf F16.gguf] [--mlx PYTHON] [--hqq PYTHON] [--folder NAME=OUT ...]

llama.cpp: llama-imatrix on the calibration text, llama-quantize, llama-perplexity
--kl-divergence with windows of 512 tokens against the F16 file. MLX and HQQ: quantised and
turned back to float16 by their own code, then `eval --against` here; docs/quality.md shows that
the two evaluators agree. Folders that compress-model wrote are evaluated as they are. Prints a
markdown table and, with --json FILE, the figures.
"""

import argparse
import json
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

LLAMA_TYPES = ["Q2_K", "IQ3_S", "Q3_K_M", "Q4_K_M"]
# What runs in the peers' own environments.
MLX = """
import sys
from mlx_lm import convert
model, out, bits, group = sys.argv[1:]
convert(model, out + "-q", quantize=True, q_bits=int(bits), q_group_size=int(group))
convert(out + "-q", out, dequantize=True, dtype="float16")
"""
HQQ = """
import json, pathlib, shutil, sys
import torch
from hqq.core.quantize import Quantizer
from safetensors.torch import load_file, save_file
model, out, bits, group = sys.argv[1:]
source, out = pathlib.Path(model), pathlib.Path(out)
out.mkdir()
for file in source.iterdir():
    if file.suffix == ".json" or file.name == "tokenizer.model":
        shutil.copy(file, out)
for file in source.glob("*.safetensors"):
    tensors = load_file(file)
    for name, w in tensors.items():
        if name.endswith("proj.weight"):
            q, meta = Quantizer.quantize(w.float(), nbits=int(bits), group_size=int(group), axis=1,
                                         device="cpu", compute_dtype=torch.float32)
            tensors[name] = Quantizer.dequantize(q, meta).reshape(w.shape).to(torch.float16)
    save_file(tensors, out / file.name, metadata={"format": "pt"})
"""


def run(*command, **options):
    """Output, seconds and peak memory in MB of a command."""
    start, before = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    done = subprocess.run(["/usr/bin/env", "time", "-f", "peak_kb=%M", *map(str, command)],
                          capture_output=True, text=True, **options)
    text = done.stdout + done.stderr
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{text[-3000:]}")
    peak = re.findall(r"peak_kb=(\d+)", text)
    peak = int(peak[-1]) if peak else max(before, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    return text, time.time() - start, peak / 1024


def linear_bits(gguf):
    from gguf import GGUFReader

    tensors = [t for t in GGUFReader(gguf).tensors
               if t.name.startswith("blk.") and len(t.shape) == 2]
    return 8 * sum(int(t.n_bytes) for t in tensors) / sum(int(t.n_elements) for t in tensors)


def llama(args, rows):
    tool = lambda name: args.llama / name
    imatrix, logits = args.work / "imatrix.gguf", args.work / "logits.kld"
    _, collecting, _ = run(tool("llama-imatrix"), "-m", args.gguf, "-f", args.calibration, "-o",
                           imatrix, "-c", 512, "--chunks", args.chunks, "-t", args.threads)
    run(tool("llama-perplexity"), "-m", args.gguf, "-f", args.text, "-c", 512, "-t", args.threads,
        "--kl-divergence-base", logits)
    for kind in LLAMA_TYPES:
        out = args.work / f"{kind}.gguf"
        _, seconds, peak = run(tool("llama-quantize"), "--imatrix", imatrix, args.gguf, out, kind,
                               args.threads)
        text, _, _ = run(tool("llama-perplexity"), "-m", out, "-c", 512, "-t", args.threads,
                         "--kl-divergence-base", logits, "--kl-divergence")
        figure = lambda pattern: float(re.search(pattern, text)[1])
        rows.append({
            "name": f"llama.cpp {kind}, imatrix", "megabytes": out.stat().st_size / 1e6,
            "linear_bpw": linear_bits(out), "ppl": figure(r"Mean PPL\(Q\) +: +([\d.]+)"),
            "kld": figure(r"Mean +KLD: +([\d.]+)"), "top1": figure(r"Same top p: +([\d.]+)"),
            "seconds": seconds + collecting, "peak_mb": peak,
        })
        out.unlink()


def ours(args, folder):
    command = [args.ours, "eval", folder, "--against", args.model, "--text", args.text, "--json",
               "-q"]
    scores = json.loads(subprocess.check_output([str(c) for c in command]))["scores"]
    return {"ppl": scores["perplexity"]["mean"], "kld": scores["kld"]["mean"],
            "top1": 100 * scores["top1"]["mean"]}


def script(args, rows, python, source, name, bits, group, extra):
    out = args.work / f"{name}-{bits}"
    for folder in (out, Path(f"{out}-q")):
        shutil.rmtree(folder, ignore_errors=True)
    _, seconds, peak = run(python, "-c", source, args.model, out, bits, group)
    rows.append({"name": f"{name} {bits}-bit, group {group}", "megabytes": None,
                 "linear_bpw": bits + extra / group, **ours(args, out), "seconds": seconds,
                 "peak_mb": peak})


def folder(args, rows, name, out):
    manifest = json.loads((out / "manifest.json").read_text())
    rows.append({"name": name, "megabytes": manifest["totals"]["output_bytes"] / 1e6,
                 "linear_bpw": manifest["totals"]["linear_bits_per_weight"], **ours(args, out),
                 "seconds": None, "peak_mb": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("ours", "model", "text", "calibration", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("llama", "gguf", "mlx", "hqq", "json"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--folder", action="append", default=[], metavar="NAME=OUT")
    parser.add_argument("--chunks", type=int, default=128, help="windows of 512 for the imatrix")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    args.work.mkdir(exist_ok=True)
    rows = []
    for pair in args.folder:
        name, out = pair.split("=", 1)
        folder(args, rows, name, Path(out))
    if args.llama:
        llama(args, rows)
    for bits in (2, 3):
        if args.mlx:
            script(args, rows, args.mlx, MLX, "MLX", bits, 64, 32)
        if args.hqq:
            script(args, rows, args.hqq, HQQ, "HQQ", bits, 64, 32)
    print("| | MB | bpw, linear | PPL | KLD | same top, % | s | peak, MB |")
    print("|---|---|---|---|---|---|---|---|")
    number = lambda value, places: "" if value is None else f"{value:.{places}f}"
    for row in rows:
        cells = [row["name"], number(row["megabytes"], 1), number(row["linear_bpw"], 3),
                 number(row["ppl"], 2), number(row["kld"], 4), number(row["top1"], 2),
                 number(row["seconds"], 0), number(row["peak_mb"], 0)]
        print("|", " | ".join(cells), "|")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


main()
