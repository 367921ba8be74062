"""Tests of the converter and of the reference forward pass; needs numpy, gguf and tokenizers.

    python -m unittest tools/test_tools.py
"""

import contextlib
import io
import json
import math
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import gguf
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import gguf_to_hf  # noqa: E402
import reference_forward  # noqa: E402

HIDDEN, HEADS, KV_HEADS, LAYERS, VOCABULARY = 32, 4, 2, 2, 257
HEAD_DIM, FF = HIDDEN // HEADS, 24
SHAPES = {
    "attn_norm": [HIDDEN],
    "attn_q": [HIDDEN, HIDDEN],
    "attn_k": [KV_HEADS * HEAD_DIM, HIDDEN],
    "attn_v": [KV_HEADS * HEAD_DIM, HIDDEN],
    "attn_output": [HIDDEN, HIDDEN],
    "ffn_norm": [HIDDEN],
    "ffn_gate": [FF, HIDDEN],
    "ffn_up": [FF, HIDDEN],
    "ffn_down": [HIDDEN, FF],
}


def byte_tokens():
    """The 256 printable stand-ins for bytes of a GPT-2 vocabulary."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(c) for c in plain] + [chr(256 + i) for i in range(256 - len(plain))]


def tiny_weights(seed=1):
    generator = np.random.Generator(np.random.PCG64(seed))
    draw = lambda shape: (generator.standard_normal(shape) * 0.3).astype(np.float32)
    weights = {"token_embd": draw([VOCABULARY, HIDDEN]), "output_norm": draw([HIDDEN])}
    for layer in range(LAYERS):
        weights |= {f"blk.{layer}.{name}": draw(shape) for name, shape in SHAPES.items()}
    return weights


def write_gguf(path, weights, architecture="llama"):
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FF)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*byte_tokens(), "ab"])
    writer.add_token_merges(["a b"])
    for name, weight in weights.items():
        writer.add_tensor(name + ".weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def run(module, *arguments):
    """The exit code, standard output and standard error of a tool."""
    out, err = io.StringIO(), io.StringIO()
    argv = [module.__name__, *map(str, arguments)]
    with mock.patch.object(sys, "argv", argv):
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = module.main()
    return code, out.getvalue(), err.getvalue()


class InFolder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def converted(self, weights, *options):
        write_gguf(self.folder / "m.gguf", weights)
        out = self.folder / "hf"
        code, _, err = run(gguf_to_hf, self.folder / "m.gguf", out, *options)
        self.assertEqual((code, err), (0, ""))
        return out


class Conversion(InFolder):
    def refused(self, weights, message, architecture="llama", options=()):
        write_gguf(self.folder / "m.gguf", weights, architecture)
        code, _, err = run(gguf_to_hf, self.folder / "m.gguf", self.folder / "hf", *options)
        self.assertEqual(code, 3)
        self.assertIn(message, err)
        self.assertEqual([p.name for p in self.folder.iterdir()], ["m.gguf"])

    def test_rows_move_from_neighbours_to_halves(self):
        rows = np.arange(12.0)[:, None]  # two heads of six rows
        moved = gguf_to_hf.rows_to_halves(rows, heads=2)
        self.assertEqual(moved[:, 0].tolist(), [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11])

    def test_every_tensor_arrives(self):
        weights = tiny_weights()
        read = reference_forward.Weights(self.converted(weights, "--dtype", "f32"))
        self.assertEqual(len(read.tensors), len(weights))
        same = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
        same["blk.1.ffn_down"] = "model.layers.1.mlp.down_proj"
        same["blk.0.attn_v"] = "model.layers.0.self_attn.v_proj"
        for source, name in same.items():
            np.testing.assert_array_equal(read[name + ".weight"], weights[source])

    def test_bf16_rounds_to_nearest_even(self):
        # Two halfway cases, one rounded down to the even mantissa and one up, and one just above.
        bits = np.array([0x3F808000, 0x3F818000, 0x3F808001], np.uint32)
        encoded = gguf_to_hf.encode(bits.view(np.float32), "bf16", "w")
        self.assertEqual(np.frombuffer(encoded, "<u2").tolist(), [0x3F80, 0x3F82, 0x3F81])

    def test_refuses_what_it_would_get_wrong(self):
        weights = tiny_weights()
        self.refused(weights, "architecture 'qwen2'", architecture="qwen2")
        self.refused(weights | {"rope_freqs": np.ones(2, np.float32)}, "scaled rotary")
        self.refused(weights | {"blk.0.ffn_gate_inp": np.ones([2, HIDDEN], np.float32)}, "no place")
        short = {k: v for k, v in weights.items() if k != "blk.1.attn_k"}
        self.refused(short, "19 tensors for 2 layers, not 20")
        large = weights | {"blk.0.ffn_up": np.full([FF, HIDDEN], 1e6, np.float32)}
        self.refused(large, "does not fit f16")
        large["blk.0.ffn_up"][3, 5] = np.nan
        self.refused(large, "NaN", options=["--dtype", "bf16"])

    def test_cut_file_and_taken_folder(self):
        write_gguf(self.folder / "m.gguf", tiny_weights())
        whole = (self.folder / "m.gguf").read_bytes()
        (self.folder / "cut.gguf").write_bytes(whole[:-1000])
        code, _, err = run(gguf_to_hf, self.folder / "cut.gguf", self.folder / "hf")
        self.assertEqual(code, 3)
        self.assertIn("cut short", err)
        code, _, err = run(gguf_to_hf, self.folder / "m.gguf", self.folder)
        self.assertEqual(code, 3)
        self.assertIn("not an empty folder", err)
        self.assertEqual(run(gguf_to_hf, self.folder / "none.gguf", self.folder / "hf")[0], 4)


class Forward(InFolder):
    def logits(self, weights, ids):
        folder = self.converted(weights, "--dtype", "f32")
        (logits,) = reference_forward.Llama(folder).logits([np.array(ids)])
        return logits

    def test_rotation_of_neighbours_and_of_halves_give_one_attention(self):
        """GGUF rows rotated as pairs (2i, 2i+1) score as the moved rows rotated as halves."""
        generator = np.random.Generator(np.random.PCG64(2))
        q, k = generator.standard_normal((2, 6, HEAD_DIM))
        angle = np.arange(6)[:, None] * 100.0 ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM)
        turn = np.exp(1j * angle)
        as_complex = lambda x: (x[:, 0::2] + 1j * x[:, 1::2]) * turn
        expected = (as_complex(q) @ as_complex(k).conj().T).real
        moved = lambda x: gguf_to_hf.rows_to_halves(x.T, heads=1).T[:, None]
        turned_q, turned_k = (reference_forward.rotate(moved(x), 100.0)[:, 0] for x in (q, k))
        np.testing.assert_allclose(turned_q @ turned_k.T, expected, atol=1e-6)

    def test_later_tokens_change_nothing_before(self):
        weights = tiny_weights()
        whole = self.logits(weights, [5, 9, 200, 31])
        (self.folder / "hf").rename(self.folder / "first")
        head = self.logits(weights, [5, 9])
        np.testing.assert_allclose(whole[:2], head, rtol=1e-5, atol=1e-6)
        self.assertGreater(np.abs(whole[2] - whole[3]).max(), 0.01)

    def test_zero_embeddings_score_uniformly(self):
        weights = tiny_weights() | {"token_embd": np.zeros([VOCABULARY, HIDDEN], np.float32)}
        logits = self.logits(weights, [1, 2, 3])
        loss = reference_forward.negative_log_likelihood(logits, np.array([1, 2, 3]))
        np.testing.assert_allclose(loss, math.log(VOCABULARY))

    def test_difference_by_hand(self):
        difference = reference_forward.Difference()
        difference.add([[3.0, 0.0]], [[0.0, 4.0]])
        difference.add([[0.0, 0.0]], [[3.0, 0.0]])
        summary = difference.summary()
        self.assertEqual(summary["max_abs"], 4.0)
        self.assertAlmostEqual(summary["relative"], math.sqrt(34 / 25))

    def test_command_compares_two_folders(self):
        weights = tiny_weights()
        first = self.converted(weights, "--dtype", "f32").rename(self.folder / "first")
        weights["blk.1.ffn_down"] = weights["blk.1.ffn_down"] * 1.5
        second = self.converted(weights, "--dtype", "f32")
        text = self.folder / "text.txt"
        text.write_text("the quick brown fox " * 20)
        options = ["--text", text, "--ctx", 16, "--windows", 2, "--json"]
        code, out, _ = run(reference_forward, first, *options, "--logits-against", second)
        result = json.loads(out)
        self.assertEqual((code, result["windows"], result["scored_tokens"]), (0, 2, 30))
        self.assertGreater(result["logits_against"]["relative"], 1e-3)
        code, out, _ = run(reference_forward, first, *options, "--logits-against", first)
        self.assertEqual(json.loads(out)["logits_against"]["max_abs"], 0)

    def test_refuses_a_folder_with_more_than_a_llama(self):
        folder = self.converted(tiny_weights(), "--dtype", "f32")
        model = reference_forward.Llama(folder)
        model.config["num_hidden_layers"] = 1
        with self.assertRaisesRegex(reference_forward.Unsupported, "9 unused tensors"):
            next(model.logits([np.array([1, 2])]))


if __name__ == "__main__":
    unittest.main()
