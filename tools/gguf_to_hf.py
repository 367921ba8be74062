#!/usr/bin/env python3
"""Turn a Llama GGUF file into a Hugging Face folder.

    python tools/gguf_to_hf.py IN.gguf OUT [--dtype f16|bf16|f32]

OUT receives model.safetensors, config.json, generation_config.json, tokenizer.json and
tokenizer_config.json, and appears only when all of them are written. The weights are the
dequantised values: they carry the quantisation error of the source file.

Three things differ between the two formats:

* Shapes. GGUF lists the fastest dimension first; Hugging Face matrices are
  [out_features, in_features].
* Rotary pairs. GGUF rotates the neighbours (2i, 2i+1) of a head, Hugging Face the halves
  (i, i + head_dim/2), so the rows of q_proj and k_proj are reordered.
* Tied embeddings. A GGUF file without output.weight shares the embedding with the output head.

Only what is certain is converted: architecture `llama` with plain rotary embeddings, no biases and
no experts, and a byte-level BPE tokenizer. Anything else ends with a message and no OUT.

Needs numpy and gguf. Exit codes: 0 done, 2 usage, 3 unsupported or invalid input, 4 I/O.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

TOP_LEVEL = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
PER_LAYER = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}

# --dtype: (safetensors name, name in config.json, bytes per weight)
DTYPES = {"f16": ("F16", "float16", 2), "bf16": ("BF16", "bfloat16", 2), "f32": ("F32", "float32", 4)}

# Metadata of the architecture that is read here, or that changes nothing.
KNOWN = {
    "attention.head_count", "attention.head_count_kv", "attention.key_length",
    "attention.layer_norm_rms_epsilon", "attention.value_length", "block_count", "context_length",
    "embedding_length", "feed_forward_length", "rope.dimension_count", "rope.freq_base",
    "rope.scaling.finetuned", "rope.scaling.original_context_length", "tensor_data_layout", "vocab_size",
}  # fmt: skip
# Metadata that changes nothing with this value.
NEUTRAL = {
    "attention.causal": True, "expert_count": 0, "expert_used_count": 0, "rope.scale_linear": 1.0,
    "rope.scaling.attn_factor": 1.0, "rope.scaling.factor": 1.0, "rope.scaling.type": "none",
}  # fmt: skip

# tokenizer.ggml.token_type
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4


class Unsupported(Exception):
    """The input is not a file that this converter can translate faithfully."""


class Source:
    """A GGUF file: its metadata by key, its tensors by GGUF name."""

    def __init__(self, path):
        try:
            reader = GGUFReader(path)
        except (ValueError, IndexError, OverflowError, UnicodeDecodeError) as e:
            raise Unsupported(f"{path}: not a GGUF file, or cut short ({e})") from e
        self.path = path
        self.fields = reader.fields
        self.tensors = {t.name: t for t in reader.tensors}

    def get(self, key, default=None):
        field = self.fields.get(key)
        return default if field is None else field.contents()

    def need(self, key):
        value = self.get(key)
        if value is None:
            raise Unsupported(f"{self.path}: the metadata lack {key!r}")
        return value

    def size(self, name, default=None):
        """A size of the model: a number, or a list of one for every layer that are all the same."""
        value = self.get(f"llama.{name}", default)
        if isinstance(value, (list, tuple)):
            if len(set(value)) != 1:
                raise Unsupported(f"{self.path}: {name} differs from layer to layer: {value}")
            value = value[0]
        return self.need(f"llama.{name}") if value is None else value

    def heads(self):
        """Query heads and key heads."""
        heads = self.size("attention.head_count")
        return heads, self.size("attention.head_count_kv", heads)

    def matrix(self, name):
        """The tensor as float32, in Hugging Face orientation."""
        tensor = self.tensors[name]
        try:
            values = dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError as e:
            raise Unsupported(
                f"{self.path}: {name}: gguf cannot decode {tensor.tensor_type.name}"
            ) from e
        return np.ascontiguousarray(values, np.float32).reshape(self.shape(name))

    def shape(self, name):
        return [int(n) for n in self.tensors[name].shape[::-1]]


# ------------------------------------------------------------------------------- weights


def check_supported(source):
    """Refuses what would convert into a model that computes something else."""
    arch = source.need("general.architecture")
    if arch != "llama":
        raise Unsupported(f"{source.path}: architecture {arch!r}; only 'llama' is supported")
    if source.get("split.count", 1) > 1:
        raise Unsupported(f"{source.path}: a part of a split model; merge the parts first")
    unscaled = source.get("llama.rope.scaling.type") == "none"
    for key in sorted(source.fields):
        name = key.removeprefix("llama.")
        if name == key or name in KNOWN or source.get(key) == NEUTRAL.get(name):
            continue
        # Of no type the factor has no effect.
        if not (unscaled and name in ("rope.scaling.factor", "rope.scale_linear")):
            raise Unsupported(f"{source.path}: metadata {key!r} is not supported: {source.get(key)}")
    if "rope_freqs.weight" in source.tensors:
        raise Unsupported(f"{source.path}: scaled rotary embeddings are not supported")
    if "token_embd.weight" not in source.tensors:
        raise Unsupported(f"{source.path}: no token_embd.weight: not a whole model")
    heads, kv_heads = source.heads()
    widths = source.size("attention.key_length", source.size("embedding_length") // heads)
    for name, rows in (("attn_q", heads), ("attn_k", kv_heads), ("attn_v", kv_heads)):
        for tensor in source.tensors:
            if tensor.endswith(f"{name}.weight") and source.shape(tensor)[0] != rows * widths:
                raise Unsupported(f"{source.path}: {tensor} is not {rows} heads of {widths} rows")
    for name in ("attention.value_length", "rope.dimension_count"):
        if source.size(name, widths) != widths:
            raise Unsupported(f"{source.path}: {name} other than the width of a head, {widths}")


def hf_name(gguf_name):
    """The Hugging Face name of a GGUF tensor, or None when the architecture has no such tensor."""
    if gguf_name in TOP_LEVEL:
        return TOP_LEVEL[gguf_name]
    parts = gguf_name.split(".", 2)
    if len(parts) == 3 and parts[0] == "blk" and parts[1].isdigit() and parts[2] in PER_LAYER:
        return f"model.layers.{parts[1]}.{PER_LAYER[parts[2]]}"
    return None


def name_map(source):
    """Hugging Face name -> GGUF name for every tensor, sorted as the file will be."""
    names = {}
    for gguf_name in source.tensors:
        name = hf_name(gguf_name)
        if name is None:
            raise Unsupported(f"{source.path}: tensor {gguf_name!r} has no place in a Llama model")
        names[name] = gguf_name
    layers = source.need("llama.block_count")
    expected = len(PER_LAYER) * layers + len(TOP_LEVEL) - ("lm_head.weight" not in names)
    if len(names) != expected:
        raise Unsupported(f"{source.path}: {len(names)} tensors for {layers} layers, not {expected}")
    return dict(sorted(names.items()))


def rows_to_halves(matrix, heads):
    """Moves row (2i + j) of each head to (i + j * head_dim/2): neighbour pairs to half pairs."""
    rows, columns = matrix.shape
    pairs = matrix.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def hf_matrix(source, gguf_name):
    matrix = source.matrix(gguf_name)
    heads, kv_heads = source.heads()
    if gguf_name.endswith("attn_q.weight"):
        return rows_to_halves(matrix, heads)
    if gguf_name.endswith("attn_k.weight"):
        return rows_to_halves(matrix, kv_heads)
    return matrix


def encode(matrix, dtype, name):
    """The little-endian bytes of a float32 matrix in `dtype`, rounded to nearest even."""
    if not np.isfinite(matrix).all():
        raise Unsupported(f"{name}: NaN or infinite weights")
    if dtype == "f32":
        return matrix.astype("<f4").tobytes()
    if dtype == "bf16":
        bits = np.ascontiguousarray(matrix, "<f4").view("<u4")
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    with np.errstate(over="ignore"):
        half = matrix.astype("<f2")
    if not np.isfinite(half).all():
        raise Unsupported(f"{name}: {np.abs(matrix).max():g} does not fit f16; use --dtype bf16")
    return half.tobytes()


def write_safetensors(source, names, dtype, path):
    """Writes one tensor after the other, so that one matrix at a time is in memory."""
    code, _, width = DTYPES[dtype]
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, gguf_name in names.items():
        shape = source.shape(gguf_name)
        end = offset + width * int(np.prod(shape))
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for name, gguf_name in names.items():
            f.write(encode(hf_matrix(source, gguf_name), dtype, name))


# -------------------------------------------------------------------------------- config


def config(source, names, dtype):
    """config.json as transformers' LlamaConfig reads it."""
    hidden = source.size("embedding_length")
    heads, kv_heads = source.heads()
    # Stored as f32: six digits give back the decimal that the model was trained with.
    epsilon = float(f"{source.need('llama.attention.layer_norm_rms_epsilon'):.6g}")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": source.size("feed_forward_length"),
        "num_hidden_layers": source.need("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": source.size("attention.key_length", hidden // heads),
        "max_position_embeddings": source.need("llama.context_length"),
        "vocab_size": source.shape("token_embd.weight")[0],
        "rms_norm_eps": epsilon,
        "rope_theta": float(source.get("llama.rope.freq_base", 10000.0)),
        "rope_scaling": None,
        "hidden_act": "silu",
        "tie_word_embeddings": "lm_head.weight" not in names,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "bos_token_id": source.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": source.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": source.get("tokenizer.ggml.padding_token_id"),
        "initializer_range": 0.02,
        "use_cache": True,
        "torch_dtype": DTYPES[dtype][1],
    }


# ----------------------------------------------------------------------------- tokenizer


def pre_tokenizer(source):
    """How text is cut before BPE; GGUF names the scheme, Hugging Face spells it out."""
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    # Without a name, and under "default", llama.cpp cuts in a way that no model was trained with.
    scheme = source.get("tokenizer.ggml.pre")
    if scheme == "gpt-2":
        return byte_level
    if scheme == "smollm":
        digits = {"type": "Digits", "individual_digits": True}
        return {"type": "Sequence", "pretokenizers": [digits, byte_level]}
    raise Unsupported(f"{source.path}: unknown pre-tokenizer {scheme!r}")


def added_tokens(tokens, types):
    return [
        {
            "id": i,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind == CONTROL,
        }
        for i, (token, kind) in enumerate(zip(tokens, types))
        if kind in (CONTROL, USER_DEFINED)
    ]


def post_processor(source, tokens):
    """What puts a first and a last token around every text, where the file says so."""
    ends = {}
    for end in ("bos", "eos"):
        if source.get(f"tokenizer.ggml.add_{end}_token", False):
            ends[end] = source.need(f"tokenizer.ggml.{end}_token_id")
    if not ends:
        return None

    def part(kind, name):
        around = {end: [{"SpecialToken": {"id": tokens[i], "type_id": kind}}] for end, i in ends.items()}
        return [*around.get("bos", []), {"Sequence": {"id": name, "type_id": kind}}, *around.get("eos", [])]

    return {
        "type": "TemplateProcessing",
        "single": part(0, "A"),
        "pair": part(0, "A") + part(1, "B"),
        "special_tokens": {
            tokens[i]: {"id": tokens[i], "ids": [i], "tokens": [tokens[i]]} for i in ends.values()
        },
    }


def tokenizer(source):
    """tokenizer.json as the `tokenizers` library reads it."""
    kind = source.need("tokenizer.ggml.model")
    if kind != "gpt2":
        raise Unsupported(f"{source.path}: tokenizer {kind!r}; only byte-level BPE ('gpt2')")
    tokens = source.need("tokenizer.ggml.tokens")
    vocabulary = {token: i for i, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise Unsupported(f"{source.path}: the vocabulary names a token twice")
    types = source.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens(tokens, types),
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer(source),
        "post_processor": post_processor(source, tokens),
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [m.split(" ", 1) for m in source.need("tokenizer.ggml.merges")],
        },
    }


def tokenizer_config(source):
    """tokenizer_config.json: the special tokens by name, and the chat template."""
    tokens = source.need("tokenizer.ggml.tokens")
    result = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": source.need("llama.context_length"),
        "clean_up_tokenization_spaces": False,
    }
    names = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    for short, long in names.items():
        token_id = source.get(f"tokenizer.ggml.{long}_token_id")
        if token_id is not None:
            result[f"{short}_token"] = tokens[token_id]
    template = source.get("tokenizer.chat_template")
    if template:
        result["chat_template"] = template
    return result


# -------------------------------------------------------------------------------- folder


def write_folder(source, dtype, folder):
    """Writes every file of the Hugging Face folder; returns the number of tensors and weights."""
    check_supported(source)
    names = name_map(source)
    settings = config(source, names, dtype)
    generation = {k: settings[k] for k in ("bos_token_id", "eos_token_id")}
    documents = {
        "config.json": settings,
        "generation_config.json": generation,
        "tokenizer.json": tokenizer(source),
        "tokenizer_config.json": tokenizer_config(source),
    }
    for file_name, document in documents.items():
        text = json.dumps(document, ensure_ascii=False, indent=2) + "\n"
        (folder / file_name).write_text(text, encoding="utf-8")
    write_safetensors(source, names, dtype, folder / "model.safetensors")
    return len(names), sum(int(np.prod(source.shape(n))) for n in names.values())


def convert(source_path, out, dtype):
    """Converts into a temporary sibling of `out` and renames it when it is complete."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Unsupported(f"{out}: exists and is not an empty folder")
    source = Source(source_path)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        counts = write_folder(source, dtype, partial)
        partial.chmod(0o755)  # mkdtemp makes it private
        os.replace(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return counts


def main():
    parser = argparse.ArgumentParser(description="Turn a Llama GGUF file into a Hugging Face folder.")
    parser.add_argument("gguf", type=Path, help="the GGUF file")
    parser.add_argument("out", type=Path, help="the folder to write; must not exist or be empty")
    parser.add_argument("--dtype", default="f16", choices=sorted(DTYPES), help="default: f16")
    args = parser.parse_args()
    try:
        tensors, weights = convert(args.gguf, args.out, args.dtype)
    except Unsupported as e:
        print(f"error: {e}", file=sys.stderr)
        return 3
    except OSError as e:
        print(f"error: {e}", file=sys.stderr)
        return 4
    print(f"{args.out}: {weights:,} weights in {tensors} tensors ({args.dtype})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
