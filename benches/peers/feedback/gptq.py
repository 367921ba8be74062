#!/usr/bin/env python3
"""Error feedback: this project's solver beside GPTQ's algorithm in torch, in turns.

    cargo build --release --example feedback_ours
    python benches/peers/feedback/gptq.py --ours target/release/examples/feedback_ours --work DIR

The algorithm is that of arXiv 2210.17323 as its authors run it: damping 1 %, columns by falling
activation, Cholesky of the inverse, blocks of 128 columns, here on the balanced 2-bit grid with a
least-squares scale for each group of 64. Both start from the same W and H = mean of x·xᵀ and use
two threads. Prints seconds (medians) and tr(E·H·Eᵀ).
"""

import argparse
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np
import torch

SHAPES = [(1536, 576), (576, 1536), (2048, 2048)]
GROUP, BLOCK = 64, 128


def material(rows, n):
    rng = np.random.default_rng(rows + n)
    common = rng.normal(size=(4 * n, 8)) @ rng.normal(size=(8, n))
    x = (rng.normal(size=(4 * n, n)) + common) * np.exp(rng.normal(size=n))
    return (rng.standard_t(5, size=(rows, n)) * 0.02).astype(np.float32), (
        x.T @ x / len(x)).astype(np.float32)


def scales(w):
    groups = w.reshape(w.shape[0], -1, GROUP)
    s = groups.abs().mean(-1, keepdim=True)
    for _ in range(20):
        q = torch.where(groups.abs() > s, 1.5, 0.5)
        s = (groups.abs() * q).sum(-1, keepdim=True) / (q * q).sum(-1, keepdim=True)
    return s.half().float().expand_as(groups).reshape(w.shape)


def gptq(w, h):
    n = w.shape[1]
    s = scales(w)
    order = torch.argsort(torch.diag(h), descending=True)
    w, s, h = w[:, order].clone(), s[:, order], h[order][:, order].clone()
    h += 0.01 * torch.mean(torch.diag(h)) * torch.eye(n)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(h))
    upper = torch.linalg.cholesky(inverse, upper=True)
    coded = torch.zeros_like(w)
    for first in range(0, n, BLOCK):
        end = min(first + BLOCK, n)
        part, errors = w[:, first:end].clone(), torch.zeros(w.shape[0], end - first)
        local = upper[first:end, first:end]
        for i in range(end - first):
            column, scale = part[:, i], s[:, first + i]
            magnitude = torch.where(column.abs() > scale, 1.5, 0.5)
            level = scale * torch.where(column < 0, -magnitude, magnitude)
            coded[:, first + i] = level
            errors[:, i] = (column - level) / local[i, i]
            part[:, i:] -= errors[:, i : i + 1] @ local[i : i + 1, i:]
        w[:, end:] -= errors @ upper[first:end, end:]
    result = torch.zeros_like(coded)
    result[:, order] = coded
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ours", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    args.work.mkdir(exist_ok=True)
    torch.set_num_threads(2)
    print("| out x in | torch, s | error | ours, s | error | ratio | + 2 passes, s | error |")
    print("|---|---|---|---|---|---|---|---|")
    for rows, n in SHAPES:
        w, h = material(rows, n)
        w.tofile(args.work / "w.f32")
        h.tofile(args.work / "h.f32")
        weights, hessian = torch.from_numpy(w), torch.from_numpy(h)
        times = {"torch": [], 0: [], 2: []}
        errors = {}
        for _ in range(args.rounds):
            start = time.time()
            e = weights - gptq(weights, hessian)
            times["torch"].append(time.time() - start)
            errors["torch"] = float(((e @ hessian) * e).sum())
            for passes in (0, 2):
                out = subprocess.check_output(
                    [args.ours, args.work, str(rows), str(n), str(passes)],
                    env={"RAYON_NUM_THREADS": "2"}, text=True)
                seconds, errors[passes] = map(float, out.split())
                times[passes].append(seconds)
        median = {key: statistics.median(value) for key, value in times.items()}
        print(f"| {rows} x {n} | {median['torch']:.3f} | {errors['torch']:.4g} | {median[0]:.3f} | "
              f"{errors[0]:.4g} | {median['torch'] / median[0]:.1f} | {median[2]:.3f} | "
              f"{errors[2]:.4g} |")


main()
