#!/usr/bin/env python3
"""Loads what `compress-model export --format mlx` wrote with mlx-lm, and compares.

    python mlx_export.py BINARY COMPRESSED MLX_FOLDER [--adapter FOLDER] [--text FILE] [--windows N] [--ctx N]

- Every coded module, decoded by mx.dequantize, equals the compressed folder's weights as the Python
  package decodes them: exactly where scales are float32, else after the roundings of that type.
- Perplexity is within 0.5 % of `compress-model eval COMPRESSED`, and greedy generation says what
  `compress-model generate COMPRESSED` says up to rounding.

Prints one JSON object; exit code 1 says that something differs.
"""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx_lm
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.generate import generate_step

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "python"))

import compress_model  # noqa: E402

MOST_DIFFERENT = 0.005


def ours(binary, *arguments):
    out = subprocess.run([binary, *map(str, arguments), "--json", "-q"], check=True, capture_output=True)
    return json.loads(out.stdout)


def expected(folder, name, dtype, module):
    """The folder's weights as scale and bias of `dtype` give them, each operation rounded once."""
    weight = folder.weight(name, adapter=False)
    if dtype == mx.float32:
        return weight
    parts = folder.stored(name)
    group = folder.entries[name]["params"].get("group") or weight.shape[1]
    bits = module.bits
    shifts = np.arange(8 // bits, dtype=np.uint8) * bits
    codes = (parts["codes"][..., None] >> shifts) & ((1 << bits) - 1)
    codes = codes.reshape(len(weight), -1)[:, : weight.shape[1]].astype(np.float32)
    scales = parts["scales"].astype(np.float32)
    biases = parts["mins"].astype(np.float32) if "mins" in parts else np.float32(-1.5) * scales

    def rounded(x):
        return np.array(mx.array(x).astype(dtype).astype(mx.float32))

    spread = lambda x: np.repeat(rounded(x), group, axis=1)[:, : weight.shape[1]]
    return rounded(rounded(spread(scales) * codes) + spread(biases))


def check_weights(model, folder):
    coded = rounded = 0
    modules = dict(model.named_modules())
    for name in folder.names():
        path = name.removesuffix(".weight")
        module = modules.get(f"{path}.linear") or modules.get(path)  # inside an adapter, or bare
        if not isinstance(module, (nn.QuantizedLinear, nn.QuantizedEmbedding)):
            continue
        weight = mx.dequantize(
            module.weight, module.scales, module.biases, group_size=module.group_size, bits=module.bits
        )
        want = expected(folder, name, module.scales.dtype, module)
        found = np.array(weight.astype(mx.float32))
        if not np.array_equal(found, want):
            wrong = np.count_nonzero(found != want)
            sys.exit(f"error: {name}: {wrong} of {want.size} weights differ, e.g. "
                     f"{found[found != want][0]} for {want[found != want][0]}")
        coded += 1
        rounded += not np.array_equal(want, folder.weight(name, adapter=False))
    return {"coded_modules": coded, "rounded_modules": rounded}


def perplexity(model, tokenizer, text, windows, ctx):
    """exp of the mean negative log-likelihood of the second half of each window."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    total = count = 0
    for window in range(windows):
        tokens = mx.array(ids[window * ctx : (window + 1) * ctx])
        logits = model(tokens[None])[0].astype(mx.float32)
        losses = nn.losses.cross_entropy(logits[:-1], tokens[1:])
        # As llama.cpp scores: logits ctx/2 to ctx - 2.
        scored = losses[ctx // 2 :]
        total += float(scored.sum())
        count += scored.size
    return math.exp(total / count)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("compressed", type=Path)
    parser.add_argument("mlx", type=Path)
    parser.add_argument("--adapter", help="what `export --format mlx-adapter` wrote")
    parser.add_argument("--text", type=Path, default=REPOSITORY / "fixtures" / "eval_cc0.txt")
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--ctx", type=int, default=64)
    parser.add_argument("--generate", type=int, default=16)
    args = parser.parse_args()

    model, tokenizer = mlx_lm.load(str(args.mlx), adapter_path=args.adapter)
    result = {"client": f"mlx-lm {mlx_lm.__version__}, mlx {mx.__version__}", "folder": args.mlx.name}
    if args.adapter:
        factors = [name for name, _ in tree_flatten(model.parameters()) if name.endswith("lora_b")]
        result["adapters"] = len(factors)
    with compress_model.open(args.compressed) as folder:
        result |= check_weights(model, folder)
    text = args.text.read_text(encoding="utf-8")
    report = ours(args.binary, "eval", args.compressed, "--text", args.text, "--windows", args.windows,
                  "--ctx", args.ctx)  # fmt: skip
    result["perplexity"] = perplexity(model, tokenizer, text, args.windows, args.ctx)
    result["perplexity_ours"] = report["scores"]["perplexity"]["mean"]
    result["difference"] = result["perplexity"] / result["perplexity_ours"] - 1

    prompt = text[:200]
    said = ours(args.binary, "generate", args.compressed, "--prompt", prompt, "-n", args.generate)
    ids = mx.array(tokenizer.encode(prompt, add_special_tokens=False))
    generated = [int(token) for token, _ in generate_step(ids, model, max_tokens=args.generate)]
    result["said"] = tokenizer.decode(generated)
    result["said_ours"] = tokenizer.decode(said["model"]["tokens"])
    result["ok"] = abs(result["difference"]) <= MOST_DIFFERENT and generated == said["model"]["tokens"]
    print(json.dumps(result, indent=2))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
