#!/usr/bin/env python3
"""Training steps: this project's `qat` beside the same step in PyTorch, in turns.

    pip install torch transformers safetensors     (CPU builds)
    cargo build --release
    python benches/peers/training/step.py --program target/release/compress-model \
        --model SmolLM2-135M-Instruct --start FOLDER --text fixtures/calib_cc0.txt --work DIR

FOLDER is what `compress MODEL -o FOLDER --preset on-device --calibration TEXT` wrote. Both sides
train the same linear layers of the same model on batches of the same shape with two threads: f32,
fake quantisation on the balanced 2-bit grid by the straight-through estimator with scales of 64
weights that are learnt, KLD to the original's logits over all positions, clipped gradients, AdamW.
The torch side is transformers' Llama with eager or SDPA attention, whichever is faster. Prints the
medians of seconds a step, original's forward pass included.
"""

import argparse
import json
import os
import statistics
import subprocess
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

GROUP = 64


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, s):
        scale = s.repeat_interleave(GROUP, 1)
        q = torch.where(w.abs() > scale, 1.5, 0.5)
        q = torch.where(w < 0, -q, q)
        ctx.save_for_backward(w, scale, q)
        return scale * q

    @staticmethod
    def backward(ctx, g):
        w, scale, q = ctx.saved_tensors
        inside = w.abs() < 2 * scale
        return g * inside, (g * q).reshape(w.shape[0], -1, GROUP).sum(-1)


class GridLinear(torch.nn.Module):
    def __init__(self, linear):
        super().__init__()
        w = linear.weight.detach()
        self.weight = torch.nn.Parameter(w)
        self.scale = torch.nn.Parameter(w.reshape(w.shape[0], -1, GROUP).abs().mean(-1) * 1.2)

    def forward(self, x):
        return F.linear(x, Rounded.apply(self.weight, self.scale))


def put_on_grid(module):
    for name, child in module.named_children():
        if isinstance(child, torch.nn.Linear) and name != "lm_head":
            setattr(module, name, GridLinear(child))
        else:
            put_on_grid(child)


class TorchSide:
    def __init__(self, folder, attention):
        load = lambda: AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation=attention)
        self.teacher, self.student = load().eval(), load()
        put_on_grid(self.student.model)
        for p in self.student.parameters():
            p.requires_grad = False
        trained = [p for m in self.student.modules() if isinstance(m, GridLinear)
                   for p in (m.weight, m.scale)]
        for p in trained:
            p.requires_grad = True
        self.trained = trained
        self.optimiser = torch.optim.AdamW(trained, lr=1e-5, weight_decay=0.0, foreach=False,
                                           fused=True)

    def step(self, tokens):
        start = time.time()
        with torch.no_grad():
            target = F.log_softmax(self.teacher(tokens, use_cache=False).logits, -1)
        logits = F.log_softmax(self.student(tokens, use_cache=False).logits, -1)
        loss = F.kl_div(logits, target, reduction="sum", log_target=True) / tokens.numel()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        return time.time() - start


def ours(args, steps):
    out = args.work / "out"
    subprocess.run(
        [args.program, "qat", args.model, "--start", args.start, "--text", args.text, "-o", out,
         "--overwrite", "--steps", str(steps), "--batch", str(args.batch), "--ctx", str(args.ctx),
         "--train", "scales=learnt", "--train", "held_out=0", "--threads", "2", "--quiet"],
        check=True, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    # The first step opens the original.
    return [line["seconds"] for line in lines if "gradient_norm" in line][1:]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("program", "model", "start", "text", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    args = parser.parse_args()
    args.work.mkdir(exist_ok=True)
    torch.set_num_threads(2)
    vocabulary = json.loads((args.model / "config.json").read_text())["vocab_size"]
    torch.manual_seed(0)
    tokens = torch.randint(0, vocabulary, (args.batch, args.ctx))
    times = {"ours": []}
    for round_number in range(args.rounds):
        times["ours"] += ours(args, args.steps)
        for attention in ("sdpa", "eager"):
            side = TorchSide(args.model, attention)
            side.step(tokens)
            times.setdefault(attention, []).extend(side.step(tokens) for _ in range(args.steps - 1))
            del side
        print(round_number + 1, {k: round(statistics.median(v), 2) for k, v in times.items()},
              flush=True)
    median = {k: statistics.median(v) for k, v in times.items()}
    best = min(median["sdpa"], median["eager"])
    print(f"torch {torch.__version__}: {best:.2f} s, ours {median['ours']:.2f} s a step of "
          f"{args.batch * args.ctx} tokens: {median['ours'] / best:.2f} of it")


main()
