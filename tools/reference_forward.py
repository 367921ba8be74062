#!/usr/bin/env python3
"""Perplexity and logits of a Llama folder, from a plain numpy forward pass.

    python tools/reference_forward.py DIR --text FILE [--windows 8] [--ctx 512] [--json]
                                      [--logits-against OTHER_DIR]

A second opinion that shares no code with the Rust command: it reads config.json, the safetensors
files and tokenizer.json of a Hugging Face folder and computes in float32. `--windows` windows of
`--ctx` tokens are spread evenly over the text; every token but the first of each window is scored.

`--logits-against` runs OTHER_DIR on the same token windows and reports, over all logits,
max_abs = max |a - b| and relative = ||a - b|| / ||b||, where b belongs to OTHER_DIR.

Single-file and sharded folders in F16, BF16 and F32, tied and untied heads. Needs numpy and
tokenizers. Exit codes: 0 done, 2 usage, 3 unsupported or invalid input, 4 I/O.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer


class Unsupported(Exception):
    """The folder is not a model that this forward pass computes exactly."""


# --------------------------------------------------------------------------- checkpoint


def read_header(path):
    """The tensors of one safetensors file: name -> (dtype, shape, memory-mapped bytes)."""
    with open(path, "rb") as f:
        length = int.from_bytes(f.read(8), "little")
        header = json.loads(f.read(length))
    header.pop("__metadata__", None)
    data = np.memmap(path, np.uint8, "r", offset=8 + length)
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        tensors[name] = (entry["dtype"], entry["shape"], data[start:end])
    return tensors


def to_f32(dtype, shape, raw):
    if dtype == "BF16":
        values = (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    elif dtype in ("F16", "F32"):
        values = raw.view({"F16": "<f2", "F32": "<f4"}[dtype]).astype(np.float32)
    else:
        raise Unsupported(f"dtype {dtype} is not a plain floating point weight")
    return values.reshape(shape)


class Weights:
    """The tensors of a folder as float32, decoded when asked for; remembers which were used."""

    def __init__(self, folder):
        index = folder / "model.safetensors.index.json"
        if index.exists():
            shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        else:
            shards = ["model.safetensors"]
        self.folder = folder
        self.tensors = {}
        for shard in shards:
            self.tensors.update(read_header(folder / shard))
        self.used = set()

    def __contains__(self, name):
        return name in self.tensors

    def __getitem__(self, name):
        if name not in self.tensors:
            raise Unsupported(f"{self.folder}: no tensor {name!r}")
        self.used.add(name)
        return to_f32(*self.tensors[name])

    def check_all_used(self):
        """A tensor that took no part means that the model is not the plain Llama computed here."""
        left = sorted(set(self.tensors) - self.used)
        if left:
            raise Unsupported(f"{self.folder}: {len(left)} unused tensors, first {left[0]!r}")


# ------------------------------------------------------------------------------ forward


def rms_norm(x, weight, epsilon):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(epsilon)) * weight


def silu(x):
    return x / (1 + np.exp(-np.clip(x, -80, 80)))


def rotate(x, theta):
    """Rotary embedding of x [tokens, heads, head_dim], pairs (i, i + head_dim/2)."""
    tokens, _, head_dim = x.shape
    frequency = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    angle = np.arange(tokens)[:, None, None] * frequency
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    low, high = np.split(x, 2, axis=-1)
    return np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1)


def causal_attention(q, k, v):
    """Softmax attention; q [tokens, heads, head_dim], k and v with one head per query group."""
    tokens, heads, head_dim = q.shape
    k, v = (np.repeat(m, heads // m.shape[1], axis=1) for m in (k, v))
    future = np.triu(np.full((tokens, tokens), -np.inf, np.float32), 1)
    scores = np.matmul(q.swapaxes(0, 1), k.transpose(1, 2, 0)) / np.float32(math.sqrt(head_dim))
    scores = np.exp(scores + future - (scores + future).max(-1, keepdims=True))
    scores /= scores.sum(-1, keepdims=True)
    return np.matmul(scores, v.swapaxes(0, 1)).swapaxes(0, 1).reshape(tokens, heads * head_dim)


class Llama:
    """A Llama model; one layer's weights are in memory at a time."""

    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.weights = Weights(folder)
        self._check(folder)
        rope = self.config.get("rope_parameters") or {}
        self.theta = float(self.config.get("rope_theta") or rope.get("rope_theta", 10000.0))
        self.epsilon = self.config["rms_norm_eps"]

    def _check(self, folder):
        c = self.config
        if c["model_type"] != "llama" or c.get("hidden_act", "silu") != "silu":
            raise Unsupported(f"{folder}: model_type {c['model_type']!r}; only 'llama' with silu")
        if (c.get("rope_scaling") or {}).get("rope_type", "default") != "default":
            raise Unsupported(f"{folder}: scaled rotary embeddings")
        if "quantization_config" in c:
            raise Unsupported(f"{folder}: compressed; decompress it first")

    def _attention(self, x, prefix):
        linear = lambda name: self.weights[f"{prefix}self_attn.{name}_proj.weight"].T
        tokens = [len(window) for window in x]
        joined = np.concatenate(x)
        # HF's head_dim defaults to hidden_size / heads, and the file of q_proj settles it.
        query = joined @ linear("q")
        head_dim = query.shape[1] // self.config["num_attention_heads"]
        heads = lambda m: m.reshape(len(joined), -1, head_dim)
        q, k, v = heads(query), heads(joined @ linear("k")), heads(joined @ linear("v"))
        out, start = [], 0
        for count in tokens:
            at = slice(start, start + count)
            rotated = (rotate(m[at], self.theta) for m in (q, k))
            out.append(causal_attention(*rotated, v[at]))
            start += count
        return np.concatenate(out) @ linear("o")

    def _mlp(self, x, prefix):
        linear = lambda name: self.weights[f"{prefix}mlp.{name}_proj.weight"].T
        return (silu(x @ linear("gate")) * (x @ linear("up"))) @ linear("down")

    def hidden(self, windows):
        """The normalised last hidden states [tokens, hidden_size] of each window of token ids."""
        norm = lambda x, name: rms_norm(x, self.weights[name], self.epsilon)
        cuts = np.cumsum([len(w) for w in windows])[:-1]
        x = self.weights["model.embed_tokens.weight"][np.concatenate(windows)]
        for layer in range(self.config["num_hidden_layers"]):
            prefix = f"model.layers.{layer}."
            h = norm(x, prefix + "input_layernorm.weight")
            x = x + self._attention(np.split(h, cuts), prefix)
            x = x + self._mlp(norm(x, prefix + "post_attention_layernorm.weight"), prefix)
        return np.split(norm(x, "model.norm.weight"), cuts)

    def logits(self, windows):
        """Yields the logits [tokens, vocabulary] of each window, float32."""
        states = self.hidden(windows)
        untied = "lm_head.weight" in self.weights
        head = self.weights["lm_head.weight" if untied else "model.embed_tokens.weight"]
        self.weights.check_all_used()
        for state in states:
            yield state @ head.T


# ------------------------------------------------------------------------------ measures


def token_windows(folder, text, count, length):
    """`count` windows of `length` tokens, spread evenly over the text."""
    source = (folder / "tokenizer.json").read_text(encoding="utf-8")
    try:
        tokenizer = Tokenizer.from_str(source)
    except Exception as e:  # the library raises nothing narrower
        raise Unsupported(f"{folder}: tokenizer.json: {e}") from e
    ids = np.array(tokenizer.encode(text, add_special_tokens=False).ids)
    if len(ids) < length:
        raise Unsupported(f"the text has {len(ids)} tokens, a window needs {length}")
    starts = np.linspace(0, len(ids) - length, min(count, len(ids) // length)).astype(int)
    return [ids[s : s + length] for s in starts]


def negative_log_likelihood(logits, ids):
    """Of every token but the first, in nats."""
    z = logits[:-1].astype(np.float64)
    top = z.max(-1)
    log_sum = top + np.log(np.exp(z - top[:, None]).sum(-1))
    return log_sum - z[np.arange(len(ids) - 1), ids[1:]]


class Difference:
    """Differences of pairs of logits, gathered over windows."""

    def __init__(self):
        self.max_abs, self.error, self.energy = 0.0, 0.0, 0.0

    def add(self, a, b):
        d = np.asarray(a, np.float64) - np.asarray(b, np.float64)
        if not np.isfinite(d).all():
            raise Unsupported("the logits are not finite")
        self.max_abs = max(self.max_abs, float(np.abs(d).max()))
        self.error += float((d * d).sum())
        self.energy += float((np.asarray(b, np.float64) ** 2).sum())

    def summary(self):
        return {"max_abs": self.max_abs, "relative": math.sqrt(self.error / self.energy)}


def evaluate(folder, windows, against=None):
    """Perplexity of `folder` on the windows, and its logits' distance from those of `against`."""
    losses, difference = [], Difference()
    others = Llama(against).logits(windows) if against else [None] * len(windows)
    for ids, logits, other in zip(windows, Llama(folder).logits(windows), others):
        losses.append(negative_log_likelihood(logits, ids))
        if other is not None:
            difference.add(logits, other)
    loss = np.concatenate(losses)
    result = {
        "model": str(folder),
        "windows": len(windows),
        "scored_tokens": len(loss),
        "nll": float(loss.mean()),
        "nll_standard_error": float(loss.std() / math.sqrt(len(loss))),
        "ppl": float(np.exp(loss.mean())),
    }
    if against:
        result["logits_against"] = {"model": str(against), **difference.summary()}
    return result


def print_text(result):
    print(
        f"{result['model']}: PPL {result['ppl']:.3f} "
        f"(nll {result['nll']:.4f} +- {result['nll_standard_error']:.4f}, "
        f"{result['scored_tokens']} tokens in {result['windows']} windows)"
    )
    if other := result.get("logits_against"):
        print(
            f"logits against {other['model']}: "
            f"max abs {other['max_abs']:.3e}, relative {other['relative']:.3e}"
        )


def main():
    parser = argparse.ArgumentParser(description="Perplexity and logits of a Llama folder (numpy).")
    parser.add_argument("dir", type=Path)
    parser.add_argument("--text", type=Path, required=True, help="UTF-8 text to score")
    parser.add_argument("--windows", type=int, default=8, help="default: 8")
    parser.add_argument("--ctx", type=int, default=512, help="tokens in a window; default: 512")
    parser.add_argument("--logits-against", type=Path, metavar="OTHER_DIR")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.windows < 1 or args.ctx < 2:
        parser.error("--windows must be at least 1 and --ctx at least 2")
    try:
        text = args.text.read_text(encoding="utf-8")
        windows = token_windows(args.dir, text, args.windows, args.ctx)
        result = evaluate(args.dir, windows, args.logits_against)
    except (Unsupported, KeyError, ValueError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 3
    except OSError as e:
        print(f"error: {e}", file=sys.stderr)
        return 4
    print(json.dumps(result, indent=2)) if args.json else print_text(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
