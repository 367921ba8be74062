"""GGUF against gguf-py, llama.cpp's own Python package: what we write, and what we read.

    COMPRESS_MODEL=target/debug/compress-model python -m unittest tests/clients/test_gguf.py

Needs numpy, safetensors and gguf.
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "python"))
sys.path.insert(0, str(REPOSITORY / "tools"))

import compress_model  # noqa: E402
import gguf_to_hf  # noqa: E402

BINARY = os.environ.get("COMPRESS_MODEL", str(REPOSITORY / "target" / "debug" / "compress-model"))
TINY_LLAMA = REPOSITORY / "fixtures" / "tiny-llama"
TYPES = "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K".split()
HEADS, KV_HEADS = 4, 2


def run(*arguments):
    done = subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"{arguments}: exit {done.returncode}\n{done.stderr}")
    return done


def halves(matrix, heads):
    """Neighbour pairs of each head to half pairs: llama.cpp's rows to Hugging Face's."""
    rows, cols = matrix.shape
    return matrix.reshape(heads, rows // heads // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols)


def in_hf_order(name, matrix):
    if name.endswith("attn_q.weight"):
        return halves(matrix, HEADS)
    return halves(matrix, KV_HEADS) if name.endswith("attn_k.weight") else matrix


def dequantised(tensor):
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)


HF_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
            "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
            "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
            "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
            "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}  # fmt: skip


def hf_name(name):
    parts = name.removesuffix(".weight").split(".")
    prefix = f"model.layers.{parts[1]}." if parts[0] == "blk" else ""
    return f"{prefix}{HF_NAMES[parts[-1]]}.weight"


class Gguf(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.work = Path(folder.name)

    def test_gguf_py_decodes_our_file_to_our_weights(self):
        out, file = self.work / "out", self.work / "m.gguf"
        run("compress", TINY_LLAMA, "-o", out, "--preset", "on-device", "-q",
            "--tensor-type", "layers\\.0\\..*proj=astc:effort=fast")  # fmt: skip
        run("export", out, "--format", "gguf", "-o", file, "--exact", "-q")
        reader = gguf.GGUFReader(file)
        with compress_model.open(out) as folder:
            self.assertEqual(len(reader.tensors), len(folder.names()))
            for tensor in reader.tensors:
                want = folder.weight(hf_name(tensor.name))
                found = in_hf_order(tensor.name, np.atleast_2d(dequantised(tensor))).reshape(want.shape)
                np.testing.assert_array_equal(found, want, tensor.name)
        types = {tensor.tensor_type.name for tensor in reader.tensors}
        self.assertEqual(types, {"F32", "Q4_0", "Q4_1"})

    def test_the_metadata_says_what_the_folder_says(self):
        """tools/gguf_to_hf.py, which knows files of llama.cpp, makes the same folder of ours."""
        out, file, hf = self.work / "out", self.work / "m.gguf", self.work / "hf"
        run("compress", TINY_LLAMA, "-o", out, "--preset", "on-device", "-q")
        run("export", out, "--format", "gguf", "-o", file, "-q")
        gguf_to_hf.convert(file, hf, "f32")
        ours, theirs = (json.loads((f / "config.json").read_text()) for f in (TINY_LLAMA, hf))
        for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                    "num_key_value_heads", "head_dim", "max_position_embeddings", "vocab_size",
                    "rms_norm_eps", "rope_theta", "bos_token_id", "eos_token_id", "tie_word_embeddings"):  # fmt: skip
            self.assertEqual(ours[key], theirs[key], key)
        ours, theirs = (json.loads((f / "tokenizer.json").read_text()) for f in (TINY_LLAMA, hf))
        self.assertEqual(ours["model"]["vocab"], theirs["model"]["vocab"])
        self.assertEqual(ours["model"]["merges"], theirs["model"]["merges"])
        self.assertEqual(ours["added_tokens"], theirs["added_tokens"])
        self.assertEqual(ours["pre_tokenizer"], theirs["pre_tokenizer"])

    def test_every_type_is_read_as_gguf_py_reads_it(self):
        rng = np.random.default_rng(3)
        for kind in TYPES:
            with self.subTest(kind):
                self.setUp()
                file, out, plain = self.work / "m.gguf", self.work / "out", self.work / "plain"
                self.write(file, gguf.GGMLQuantizationType[kind], rng)
                done = run("compress", file, "-o", out, "--preset", "on-device", "--ignore", r"model\.")
                self.assertEqual("quantised already" in done.stderr, kind not in ("F32", "F16", "BF16"))
                run("decompress", out, "-o", plain, "--dtype", "f32", "-q")
                found = load_file(plain / "model.safetensors")
                for tensor in gguf.GGUFReader(file).tensors:
                    if tensor.name == "output.weight":
                        continue  # coded: a recipe must code something
                    values = np.atleast_2d(dequantised(tensor))
                    want = in_hf_order(tensor.name, values)
                    have = found[hf_name(tensor.name)]
                    np.testing.assert_array_equal(have, want.reshape(have.shape), tensor.name)

    def write(self, file, kind, rng):
        """A one-layer Llama of random blocks of one type."""
        hidden, ff, vocab = 256, 512, 16
        writer = gguf.GGUFWriter(file, "llama")
        for key, value in (("context_length", 64), ("embedding_length", hidden), ("block_count", 1),
                           ("feed_forward_length", ff), ("head_count", HEADS), ("head_count_kv", KV_HEADS)):  # fmt: skip
            getattr(writer, f"add_{key}")(value)
        writer.add_layer_norm_rms_eps(1e-5)
        kv = hidden // HEADS * KV_HEADS
        shapes = {"token_embd": (vocab, hidden), "output": (vocab, hidden), "blk.0.attn_q": (hidden, hidden),
                  "blk.0.attn_k": (kv, hidden), "blk.0.attn_v": (kv, hidden),
                  "blk.0.attn_output": (hidden, hidden), "blk.0.ffn_gate": (ff, hidden),
                  "blk.0.ffn_up": (ff, hidden), "blk.0.ffn_down": (hidden, ff)}  # fmt: skip
        for name, shape in shapes.items():
            writer.add_tensor(f"{name}.weight", self.blocks(kind, shape, rng), raw_dtype=kind)
        for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
            writer.add_tensor(f"{name}.weight", rng.standard_normal(hidden).astype(np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def blocks(self, kind, shape, rng):
        """Rows of random bytes, with finite numbers where the type has fp16 scales."""
        if kind.name in ("F32", "F16"):
            return rng.standard_normal(shape).astype(np.float32 if kind.name == "F32" else np.float16)
        weights, size = gguf.GGML_QUANT_SIZES[kind]
        rows, per_row = shape[0], shape[1] // weights
        data = rng.integers(0, 256, (rows, per_row, size), dtype=np.uint8)
        halves_at = {"BF16": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
                     "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}[kind.name]  # fmt: skip
        for at in halves_at:
            half = rng.standard_normal((rows, per_row)).astype(np.float16)
            data[:, :, at : at + 2] = half[..., None].view(np.uint8)
        return data.reshape(rows, -1)


if __name__ == "__main__":
    unittest.main()
