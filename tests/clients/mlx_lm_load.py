#!/usr/bin/env python3
"""Loads a folder with mlx-lm and compares tokens, logits and greedy generation with the reference.

python mlx_lm_load.py FOLDER [--text FILE] [--windows N] [--ctx N] [--generate N]
"""

import sys

import compare
import mlx.core as mx
import mlx_lm
import numpy as np
from mlx_lm.generate import generate_step


def load(folder):
    model, tokenizer = mlx_lm.load(str(folder))
    model.set_dtype(mx.float32)  # the reference's precision: what is left is the weights' doing

    def logits(ids):
        return np.array(model(mx.array(ids)[None])[0].astype(mx.float32))

    def generate(ids, count):
        greedy = generate_step(mx.array(ids), model, max_tokens=count)
        return [token for token, _ in greedy]

    encode = lambda text: tokenizer.encode(text, add_special_tokens=False)
    return compare.Client(f"mlx-lm {mlx_lm.__version__}", encode, logits, generate)


def main():
    args = compare.parser(__doc__.splitlines()[0]).parse_args()
    return compare.check(load(args.folder), args, compare.Llama(args.folder))


if __name__ == "__main__":
    sys.exit(main())
