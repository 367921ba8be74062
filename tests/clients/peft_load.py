#!/usr/bin/env python3
"""Loads an adapter with peft on a decompressed base and compares with the folded weights.

python peft_load.py BASE ADAPTER [--merged FOLDER] [--text FILE] [--windows N] [--ctx N] [--generate N]

BASE is the decompressed folder with its adapter kept apart, ADAPTER the folder that holds
adapter_config.json and adapter_model.safetensors. The reference computes with W + s B A folded
in float32 from the files alone. peft must find every key and no other, no B may be zero, and the
logits must be the same once peft has merged the adapter, and those of the folder that
`decompress --adapters merge` wrote, if --merged names it.
"""

import json
import math
import re
import sys
from pathlib import Path

import compare
import peft
import torch
from reference_forward import Weights, read_header, to_f32
from transformers_load import client_of, load_model

PREFIX = "base_model.model."


class Adapter:
    """The low-rank factors of an adapter folder, by the name of the weight that they change."""

    def __init__(self, folder):
        self.config = json.loads((folder / "adapter_config.json").read_text())
        tensors = read_header(folder / "adapter_model.safetensors")
        self.factors = {}
        for name in tensors:
            if name.endswith(".lora_A.weight"):
                module = name.removeprefix(PREFIX).removesuffix(".lora_A.weight")
                b = name.replace(".lora_A.", ".lora_B.")
                self.factors[f"{module}.weight"] = (to_f32(*tensors[name]), to_f32(*tensors[b]))
        if 2 * len(self.factors) != len(tensors):
            sys.exit(f"error: {folder}: {len(tensors)} tensors, {len(self.factors)} lora_A/B pairs")

    def scale(self, name, rank):
        """s = alpha / r, or alpha / sqrt(r) with rsLoRA; alpha_pattern overrides lora_alpha."""
        module = name.removesuffix(".weight")
        alpha = self.config["lora_alpha"]
        for pattern, value in (self.config.get("alpha_pattern") or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                alpha = value
                break
        return alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)


class FoldedWeights(Weights):
    """A folder's weights with an adapter folded in."""

    def __init__(self, folder, adapter):
        super().__init__(folder)
        self.adapter = adapter
        if unknown := set(adapter.factors) - set(self.tensors):
            sys.exit(f"error: the base has no {min(unknown)!r}")

    def __getitem__(self, name):
        weight = super().__getitem__(name)
        if name not in self.adapter.factors:
            return weight
        a, b = self.adapter.factors[name]
        return weight + self.adapter.scale(name, len(a)) * (b @ a)


def load_adapter(model, folder, expected):
    """The model with the adapter; refuses keys that are missing or left over, and B of zeros."""
    model = peft.PeftModel.from_pretrained(model, str(folder))
    loaded = model.load_adapter(str(folder), "again")
    missing = [key for key in loaded.missing_keys if "lora_" in key]
    if missing or loaded.unexpected_keys:
        sys.exit(f"error: {folder}: missing {missing}, unexpected {loaded.unexpected_keys}")
    model.delete_adapter("again")
    factors = {name: p for name, p in model.named_parameters() if ".lora_B." in name}
    zero = [name for name, p in factors.items() if not p.any()]
    if zero or len(factors) != expected:
        sys.exit(f"error: {folder}: {len(factors)} of {expected} adapters, B of {zero} is zero")
    return model.eval()


def main():
    parser = compare.parser(__doc__.splitlines()[0])
    parser.add_argument("adapter", type=Path, help="folder with adapter_config.json")
    parser.add_argument("--merged", type=Path, help="folder whose weights hold the adapter")
    args = parser.parse_args()
    model, tokenizer = load_model(args.folder)
    adapter = Adapter(args.adapter)
    model = load_adapter(model, args.adapter, len(adapter.factors))
    reference = compare.Llama(args.folder)
    reference.weights = FoldedWeights(args.folder, adapter)
    name = f"peft {peft.__version__}, torch {torch.__version__}"
    failed = compare.check(client_of(name, model, tokenizer), args, reference)
    if args.merged:
        reference = compare.Llama(args.merged)
    client = client_of(f"{name}, merged", model.merge_and_unload(), tokenizer)
    return compare.check(client, args, reference) or failed


if __name__ == "__main__":
    sys.exit(main())
