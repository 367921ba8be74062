#!/usr/bin/env python3
"""Puts the weights of a Llama folder into a copy of an F16 GGUF file of the same model.

    python benches/peers/eval/to_gguf.py TEMPLATE.gguf FOLDER OUT.gguf

FOLDER is a plain checkpoint, as `compress-model decompress --dtype f16` writes it. Everything but
the weights (tokenizer, sizes) stays that of the template. GGUF rotates neighbours of a head where
Hugging Face rotates halves, so the rows of q_proj and k_proj are reordered. Every tensor of the
template must be found, with its shape, or nothing is written. Needs numpy, gguf and safetensors.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from safetensors import safe_open

TOP_LEVEL = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
PER_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def source_name(name):
    """Hugging Face name of a GGUF tensor, and the part that says what it is."""
    stem = name.removesuffix(".weight")
    if stem in TOP_LEVEL:
        return f"{TOP_LEVEL[stem]}.weight", stem
    _, layer, part = stem.split(".")
    return f"model.layers.{layer}.{PER_LAYER[part]}.weight", part


def halves_to_neighbours(rows, heads):
    out, width = rows.shape
    return rows.reshape(heads, 2, out // heads // 2, width).swapaxes(1, 2).reshape(out, width)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    template, folder, out = (Path(argument) for argument in sys.argv[1:])
    weights = {}
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, framework="numpy") as tensors:
            weights.update({name: tensors.get_tensor(name) for name in tensors.keys()})
    fields = GGUFReader(template).fields
    heads = {
        "attn_q": int(fields["llama.attention.head_count"].contents()),
        "attn_k": int(fields["llama.attention.head_count_kv"].contents()),
    }
    partial = out.with_suffix(".partial")
    shutil.copyfile(template, partial)
    for tensor in GGUFReader(partial, "r+").tensors:
        name, part = source_name(tensor.name)
        values = weights[name]
        if part in heads:
            values = halves_to_neighbours(values, heads[part])
        if values.shape != tensor.data.shape:
            sys.exit(f"{name}: {values.shape}, but the template has {tensor.data.shape}")
        tensor.data[...] = values.astype(tensor.data.dtype)
        tensor.data.flush()
    partial.rename(out)


if __name__ == "__main__":
    main()
