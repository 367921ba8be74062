"""GPTQ (arXiv 2210.17323, algorithm 1) in plain numpy, one column at a time, without blocks.

Writes gptq.json: a weight matrix, the inputs' mean x·xᵀ, and the levels that GPTQ picks for it in
natural order and in the order of activation. Run from this folder: python3 gptq.py > gptq.json
"""

import json

import numpy as np

ROWS, COLS, STEP, DAMPING = 5, 24, 0.25, 0.01


def gptq(w, h, order):
    w, h = w[:, order].copy(), h[np.ix_(order, order)].copy()
    h += DAMPING * np.mean(np.diag(h)) * np.eye(COLS)
    # The upper factor of the inverse: H^-1 = U^T U.
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    levels = np.zeros((ROWS, COLS), dtype=int)
    for i in range(COLS):
        levels[:, i] = np.clip(np.floor(w[:, i] / STEP + 0.5), -3, 3)
        error = (w[:, i] - STEP * levels[:, i]) / upper[i, i]
        w[:, i:] -= np.outer(error, upper[i, i:])
    result = np.zeros_like(levels)
    result[:, order] = levels
    return result


def main():
    rng = np.random.default_rng(7)
    mix = rng.normal(size=(COLS, COLS)) / 3 + np.diag(np.linspace(0.5, 2, COLS))
    x = rng.normal(size=(200, COLS)) @ mix
    h = (x.T @ x / len(x)).astype(np.float32)
    w = (rng.normal(size=(ROWS, COLS)) * 0.3).astype(np.float32)
    active = np.argsort(-np.diag(h), kind="stable")
    golden = {
        "rows": ROWS,
        "cols": COLS,
        "step": STEP,
        "damping": DAMPING,
        "weights": w.ravel().tolist(),
        "hessian": h.ravel().tolist(),
        "natural": gptq(w.astype(float), h.astype(float), np.arange(COLS)).ravel().tolist(),
        "activation": gptq(w.astype(float), h.astype(float), active).ravel().tolist(),
    }
    print(json.dumps(golden))


main()
