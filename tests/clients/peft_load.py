#!/usr/bin/env python3
"""Loads an adapter with peft on a decompressed base and compares with the folded weights.

python peft_load.py BASE ADAPTER [--text FILE] [--windows N] [--ctx N] [--generate N]

BASE is the decompressed folder with its adapter kept apart, ADAPTER the folder that holds
adapter_config.json and adapter_model.safetensors. The reference computes with W + s B A folded
in float32 from the files alone.
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


def main():
    parser = compare.parser(__doc__.splitlines()[0])
    parser.add_argument("adapter", type=Path, help="folder with adapter_config.json")
    args = parser.parse_args()
    model, tokenizer = load_model(args.folder)
    model = peft.PeftModel.from_pretrained(model, str(args.adapter)).eval()
    reference = compare.Llama(args.folder)
    reference.weights = FoldedWeights(args.folder, Adapter(args.adapter))
    name = f"peft {peft.__version__}, torch {torch.__version__}"
    return compare.check(client_of(name, model, tokenizer), args, reference)


if __name__ == "__main__":
    sys.exit(main())
