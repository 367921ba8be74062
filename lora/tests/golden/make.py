#!/usr/bin/env python3
"""Makes the golden adapter of tests/golden.rs with the classes of the Python package peft.

python make.py PEFT FOLDER     writes FOLDER/{adapter_config.json, adapter_model.safetensors,
                               updates.json}
python make.py PEFT FOLDER --check
                               opens an adapter of ours as peft would, and prints what it holds

PEFT is the unpacked wheel of peft 0.21.2. Its configuration class and its rule for patterns need
no torch; what they import from torch and transformers is replaced by empty stand-ins. Needs
numpy, safetensors, packaging and huggingface_hub.
"""

import argparse
import ast
import json
import re
import sys
import types
from pathlib import Path
from unittest import mock

import numpy as np
from safetensors.numpy import load_file, save_file

PREFIX = "base_model.model."
# out_features, in_features, rank, alpha, dtype of each module
MODULES = {
    "model.layers.0.self_attn.q_proj": (6, 4, 2, 8, np.float32),
    "model.layers.0.mlp.up_proj": (5, 4, 3, 3, np.float32),
    "model.layers.1.self_attn.q_proj": (6, 4, 2, 8, np.float16),
    "model.layers.1.mlp.up_proj": (5, 4, 1, 8, np.float32),
}


def load_peft(root):
    """peft's LoraConfig and get_pattern_key, without running the package's __init__ files."""
    for name in ("torch", "transformers", "transformers.utils"):
        sys.modules[name] = mock.MagicMock()
    sys.modules["transformers.utils"].PushToHubMixin = object
    for name in ("peft", "peft.tuners", "peft.tuners.lora"):
        package = types.ModuleType(name)
        package.__path__ = [str(root / name.replace(".", "/"))]
        sys.modules[name] = package
    sys.modules["peft"].__version__ = "0.21.2"
    utils = types.ModuleType("peft.utils")
    utils.__path__ = [str(root / "peft/utils")]
    sys.modules["peft.utils"] = utils
    from peft.utils import peft_types

    utils.CONFIG_NAME = "adapter_config.json"
    utils.PeftType, utils.TaskType = peft_types.PeftType, peft_types.TaskType
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from peft.tuners.lora.config import LoraConfig

    PEFT_TYPE_TO_CONFIG_MAPPING[peft_types.PeftType.LORA] = LoraConfig
    source = ast.parse((root / "peft/utils/other.py").read_text())
    rule = [n for n in source.body if getattr(n, "name", "") == "get_pattern_key"]
    scope = {"re": re, "Sequence": list}
    exec(compile(ast.Module(rule, []), "other.py", "exec"), scope)
    return LoraConfig, scope["get_pattern_key"]


def make(folder, config_class):
    folder.mkdir(parents=True, exist_ok=True)
    config = config_class(
        r=2,
        lora_alpha=8,
        target_modules=r".*\.(q_proj|up_proj)",
        rank_pattern={"layers.0.mlp.up_proj": 3, r"^model\.layers\.[1-9]\d*\.mlp.*": 1},
        alpha_pattern={"0.mlp.up_proj": 3},
        base_model_name_or_path="org/base",
        task_type="CAUSAL_LM",
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    rng = np.random.default_rng(5)
    tensors, updates = {}, {}
    for module, (rows, cols, rank, alpha, dtype) in MODULES.items():
        # Multiples of 1/16: exact in every dtype, and so is the product.
        a = (rng.integers(-32, 33, (rank, cols)) / 16).astype(dtype)
        b = (rng.integers(-32, 33, (rows, rank)) / 16).astype(dtype)
        tensors[f"{PREFIX}{module}.lora_A.weight"] = a
        tensors[f"{PREFIX}{module}.lora_B.weight"] = b
        update = alpha / rank * (b.astype(np.float64) @ a.astype(np.float64))
        updates[module] = {"rank": rank, "update": update.tolist()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "updates.json").write_text(json.dumps(updates, indent=1) + "\n")


def check(folder, config_class, pattern_key):
    config = config_class.from_pretrained(str(folder))
    tensors = load_file(folder / "adapter_model.safetensors")
    modules = {key.removeprefix(PREFIX).rsplit(".", 2)[0] for key in tensors}
    assert len(tensors) == 2 * len(modules), "every module has A and B"
    for module in sorted(modules):
        assert any(module == t or module.endswith(f".{t}") for t in config.target_modules), module
        a = tensors[f"{PREFIX}{module}.lora_A.weight"]
        b = tensors[f"{PREFIX}{module}.lora_B.weight"]
        rank = config.rank_pattern.get(pattern_key(config.rank_pattern, module), config.r)
        key = pattern_key(config.alpha_pattern, module)
        alpha = config.alpha_pattern.get(key, config.lora_alpha)
        assert a.shape[0] == b.shape[1] == rank, (module, a.shape, b.shape, rank)
        assert np.isfinite(a).all() and np.isfinite(b).all(), module
        print(f"{module}: {b.shape[0]} x {a.shape[1]}, rank {rank}, scale {alpha / rank}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peft", type=Path, help="folder of the unpacked wheel")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--check", action="store_true", help="read FOLDER instead of writing it")
    args = parser.parse_args()
    config_class, pattern_key = load_peft(args.peft)
    if args.check:
        check(args.folder, config_class, pattern_key)
    else:
        make(args.folder, config_class)


if __name__ == "__main__":
    main()
