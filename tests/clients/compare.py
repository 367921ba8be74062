"""What the client scripts share: token windows, the reference logits and the verdict.

A client gives three functions: `encode(text)` to token ids, `logits(ids)` to a float32 array
[tokens, vocabulary], and `generate(ids, count)` to the greedily chosen ids that follow. Each is
held against tools/reference_forward.py, which shares no code with any client.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np
from tokenizers import Tokenizer

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tools"))

from reference_forward import Difference, Llama, token_windows  # noqa: E402


class Client(NamedTuple):
    name: str
    encode: Callable
    logits: Callable
    generate: Callable


def parser(description):
    """The options that every client script takes."""
    p = argparse.ArgumentParser(description=description)
    p.add_argument("folder", type=Path, help="Hugging Face folder with plain weights")
    p.add_argument("--text", type=Path, default=REPOSITORY / "fixtures" / "eval_cc0.txt")
    p.add_argument("--windows", type=int, default=2, help="default: 2")
    p.add_argument("--ctx", type=int, default=128, help="tokens in a window; default: 128")
    p.add_argument("--generate", type=int, default=8, help="tokens to generate; default: 8")
    p.add_argument(
        "--max-relative",
        type=float,
        default=1e-4,
        help="largest ||client - reference|| / ||reference|| of the logits; default: 1e-4",
    )
    return p


def same_tokens(client, folder, text):
    """Whether the client's tokenizer cuts the head of the text as tokenizer.json says."""
    head = text[:2000]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return list(client.encode(head)) == tokenizer.encode(head, add_special_tokens=False).ids


def greedy_gap(reference, prompt, generated):
    """How far the generated tokens' reference logits fall short of the largest, at most.

    0 means that the reference would have chosen the same tokens; a tie broken the other way
    shows as a gap of rounding size.
    """
    ids = np.concatenate([prompt, generated])
    (logits,) = reference.logits([ids])
    chosen = logits[len(prompt) - 1 : -1]
    return float((chosen.max(-1) - chosen[np.arange(len(generated)), generated]).max())


def check(client, args, reference):
    """Compares, prints the result as JSON and returns the exit code: 0 equal, 1 different."""
    text = args.text.read_text(encoding="utf-8")
    windows = token_windows(args.folder, text, args.windows, args.ctx)
    difference = Difference()
    for ids, expected in zip(windows, reference.logits(windows)):
        # Padding rows at the end of a vocabulary may be cut off or added by the client.
        difference.add(client.logits(ids)[:, : expected.shape[1]], expected)
    prompt = windows[0][: args.ctx // 2]
    generated = [int(i) for i in client.generate(prompt, args.generate)]
    result = {
        "client": client.name,
        "folder": str(args.folder),
        "logits": difference.summary(),
        "same_tokens": same_tokens(client, args.folder, text),
        "generated": generated,
        "greedy_gap": greedy_gap(reference, prompt, generated),
    }
    # The gap is a difference of two logits, each of which may be off by max_abs.
    result["ok"] = (
        result["logits"]["relative"] <= args.max_relative
        and result["same_tokens"]
        and len(generated) > 0
        and result["greedy_gap"] <= 2 * result["logits"]["max_abs"]
    )
    print(json.dumps(result, indent=2))
    return 0 if result["ok"] else 1
