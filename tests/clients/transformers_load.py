#!/usr/bin/env python3
"""Loads a folder with transformers and compares tokens, logits and greedy generation.

python transformers_load.py FOLDER [--text FILE] [--windows N] [--ctx N] [--generate N]
"""

import sys

import compare
import torch
import transformers


def client_of(name, model, tokenizer):
    """The three functions of a torch causal language model."""

    def logits(ids):
        with torch.no_grad():
            return model(torch.tensor(ids)[None]).logits[0].float().numpy()

    def generate(ids, count):
        prompt = torch.tensor(ids)[None]
        options = {"do_sample": False, "max_new_tokens": count}
        out = model.generate(prompt, attention_mask=torch.ones_like(prompt), **options)
        return out[0, len(ids) :].tolist()

    encode = lambda text: tokenizer.encode(text, add_special_tokens=False)
    return compare.Client(name, encode, logits, generate)


def load_model(folder):
    """In float32, the reference's precision; refuses weights that were missing or left over."""
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        str(folder), dtype=torch.float32, output_loading_info=True
    )
    problems = {k: sorted(v) for k, v in info.items() if k != "error_msgs" and v}
    if problems:
        sys.exit(f"error: {folder}: {problems}")
    return model.eval(), transformers.AutoTokenizer.from_pretrained(str(folder))


def main():
    args = compare.parser(__doc__.splitlines()[0]).parse_args()
    name = f"transformers {transformers.__version__}, torch {torch.__version__}"
    client = client_of(name, *load_model(args.folder))
    return compare.check(client, args, compare.Llama(args.folder))


if __name__ == "__main__":
    sys.exit(main())
