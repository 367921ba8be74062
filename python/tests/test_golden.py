"""The package against the Rust decoder: real folders of the real binary, every codec, bit for bit.

    COMPRESS_MODEL=target/debug/compress-model python -m unittest discover -s python/tests

Needs numpy and safetensors.
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest
import warnings
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "python"))

import compress_model  # noqa: E402
from compress_model import astc  # noqa: E402

BINARY = os.environ.get("COMPRESS_MODEL", str(REPOSITORY / "target" / "debug" / "compress-model"))
TINY_LLAMA = REPOSITORY / "fixtures" / "tiny-llama"
ARCHITECTURES = REPOSITORY / "fixtures" / "architectures"
FOOTPRINTS = "4x4 5x4 5x5 6x5 6x6 8x5 8x6 8x8 10x5 10x6 10x8 10x10 12x10 12x12".split()
PROJECTIONS = [
    rf"layers\.{layer}\..*{name}_proj"
    for layer in range(4)
    for name in ("q", "k", "v", "o", "gate", "up", "down")
]


def run(*arguments):
    done = subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"{arguments}: exit {done.returncode}\n{done.stderr}")


def flags(assignment):
    """--tensor-type flags of (regex, codec) pairs."""
    return [word for pattern, codec in assignment for word in ("--tensor-type", f"{pattern}={codec}")]


class Golden(unittest.TestCase):
    def setUp(self):
        # A version that the package does not know yet only warns a user; here it fails.
        self.enterContext(warnings.catch_warnings())
        warnings.simplefilter("error", UserWarning)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.work = Path(folder.name)

    def compare(self, checkpoint, *arguments):
        """Compresses, decodes with both programs, compares all bits; returns the codecs seen."""
        compressed = self.work / "compressed"
        run("compress", checkpoint, "-o", compressed, "--quiet", *arguments)
        with compress_model.open(compressed) as folder:
            for mode in ("merge", "separate"):
                plain = self.work / mode
                run("decompress", compressed, "-o", plain, "--dtype", "f32", "--adapters", mode, "--quiet")
                expected = load_file(plain / "model.safetensors")
                stored = [name for name in folder.names() if folder.tied_to(name) is None]
                self.assertEqual(sorted(stored), sorted(expected))
                for name in stored:
                    weight = folder.weight(name, adapter=mode == "merge")
                    self.assertEqual(weight.dtype, np.float32)
                    same = weight.view(np.uint32) == expected[name].view(np.uint32)
                    self.assertTrue(same.all(), f"{mode} {name}: {np.count_nonzero(~same)} differ")
            return folder.manifest

    def test_presets(self):
        for preset in ("on-device", "server", "server-desktop"):
            with self.subTest(preset):
                self.setUp()
                fast = [] if preset != "server" else flags([(r"layers\.[123].*proj", "astc:effort=fast")])
                manifest = self.compare(TINY_LLAMA, "--preset", preset, *fast)
                adapters = [entry for entry in manifest["tensors"] if entry.get("adapter")]
                self.assertEqual(bool(adapters), preset != "on-device")

    def test_groups_that_do_not_divide_the_rows(self):
        self.compare(
            TINY_LLAMA, "--preset", "on-device",
            *flags([("q_proj", "grid2:group=33"), ("k_proj", "grid2:group=64"), ("embed", "int4:group=37"),
                    ("v_proj", "int4:group=1"), ("o_proj", "bc4:effort=fast,decode=unorm8")]),
        )  # fmt: skip

    def test_every_footprint_in_both_precisions(self):
        codecs = [f"astc:footprint={f},decode={d},effort=fast" for f in FOOTPRINTS for d in ("unorm8", "fp16")]
        self.compare(TINY_LLAMA, "--preset", "on-device", *flags(zip(PROJECTIONS, codecs)))

    def test_every_footprint_of_the_hdr_profile(self):
        codecs = [f"astc:footprint={f},profile=hdr,offset={o}" for f in FOOTPRINTS for o in ("fitted", "minimum")]
        self.compare(TINY_LLAMA, "--preset", "on-device", *flags(zip(PROJECTIONS, codecs)))

    def test_blocks_of_astcenc(self):
        codecs = [f"astc:footprint={f},encoder=astcenc,quality=fast" for f in FOOTPRINTS]
        self.compare(TINY_LLAMA, "--preset", "on-device", *flags(zip(PROJECTIONS, codecs)))

    def test_any_bytes(self):
        """Random blocks, legal or not: all LDR endpoint modes, two planes, every error."""
        names = [f"layers\\.0\\..*{name}_proj" for name in ("q", "k", "up", "down")]
        for decode in ("unorm8", "fp16"):
            with self.subTest(decode):
                self.setUp()
                codecs = [f"astc:footprint={f},decode={decode},effort=fast" for f in ("4x4", "6x6", "8x5", "12x12")]
                compressed, plain = self.work / "compressed", self.work / "plain"
                arguments = flags(zip(names, codecs))
                run("compress", TINY_LLAMA, "-o", compressed, "--preset", "on-device", "--quiet", *arguments)
                file = compressed / "model.safetensors"
                tensors = load_file(file)
                rng = np.random.default_rng(1)
                # The blocks of a texture have the name of the weight.
                textures = [name for name, tensor in tensors.items() if tensor.shape[-1] == 16 and tensor.ndim == 3]
                coded = [name for name in textures if tensors[name].dtype == np.uint8]
                for name in coded:
                    blocks = tensors[name]
                    blocks[:] = rng.integers(0, 256, blocks.shape, dtype=np.uint8)
                save_file(tensors, file)
                run("decompress", compressed, "-o", plain, "--dtype", "f32", "--quiet")
                expected = load_file(plain / "model.safetensors")
                self.assertEqual(len(coded), 4)
                with compress_model.open(compressed) as folder:
                    for name in coded:
                        found = folder.weight(name).view(np.uint32)
                        np.testing.assert_array_equal(found, expected[name].view(np.uint32), name)

    def test_stacked_experts(self):
        for codec in ("grid2:group=16", "int4", "astc:effort=fast", "bc4:effort=fast"):
            with self.subTest(codec):
                self.setUp()
                manifest = self.compare(
                    ARCHITECTURES / "mixtral-stacked", "--preset", "on-device", *flags([("experts", codec)])
                )
                stacked = [e for e in manifest["tensors"] if len(e["shape"]) == 3 and e["status"] == "coded"]
                self.assertTrue(stacked)

    def test_ties_and_kept_tensors(self):
        checkpoint = self.work / "tied"
        checkpoint.mkdir()
        config = json.loads((TINY_LLAMA / "config.json").read_text())
        config["tie_word_embeddings"] = True
        (checkpoint / "config.json").write_text(json.dumps(config))
        tensors = load_file(TINY_LLAMA / "model.safetensors")
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
        half = {name: w.astype(np.float16) for name, w in tensors.items()}
        save_file(half, checkpoint / "model.safetensors", metadata={"format": "pt"})
        self.compare(checkpoint, "--preset", "on-device", "--ignore", "up_proj")
        with compress_model.open(self.work / "compressed") as folder:
            self.assertIsNotNone(folder.tied_to("lm_head.weight"))
            head, embedding = folder.weight("lm_head.weight"), folder.weight("model.embed_tokens.weight")
            np.testing.assert_array_equal(head, embedding)
            self.assertEqual(folder.stored("model.layers.0.mlp.up_proj.weight")[""].dtype, np.float16)


class Rules(unittest.TestCase):
    def folder(self, version):
        work = tempfile.TemporaryDirectory()
        self.addCleanup(work.cleanup)
        (Path(work.name) / "manifest.json").write_text(
            json.dumps({"format_version": version, "tensors": [], "unknown": 1})
        )
        return compress_model.open(work.name)

    def test_versions(self):
        for bad in ("2.0", "0.9", "1", None, "1.x"):
            with self.assertRaises(compress_model.FormatError):
                self.folder(bad)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for known in ("1.0", "1.1", "1.2", "1.3"):
                self.folder(known)
            with self.assertRaisesRegex(UserWarning, "newer"):
                self.folder("1.7")

    def test_illegal_blocks_have_the_error_colour(self):
        illegal = np.zeros((1, 16), np.uint8)  # a reserved block mode
        self.assertTrue((astc.red(illegal, 6, 6, "unorm8") == 1.0).all())
        self.assertTrue(np.isnan(astc.red(illegal, 6, 6, "hdr")).all())

    def test_vectors(self):
        """The test vectors of docs/format.md, read from the page itself."""
        page = (REPOSITORY / "docs" / "format.md").read_text(encoding="utf-8")
        block = page.split("```json vectors", 1)[1].split("```", 1)[0]
        vectors = json.loads(block)
        self.assertGreaterEqual(len(vectors), 6)
        for vector in vectors:
            decode = compress_model.folder.CODECS[vector["codec"]]
            parts = {}
            for name, text in vector["parts"].items():
                raw = np.frombuffer(bytes.fromhex(text), np.uint8)
                parts[name] = raw if name in ("codes", "blocks") else raw.view("<f2")
            rows, cols = vector["shape"]
            weight = decode(parts, vector["params"], rows, cols)
            found = np.ascontiguousarray(weight).astype("<f4").tobytes().hex()
            self.assertEqual(found, vector["weights"], vector["codec"])


if __name__ == "__main__":
    unittest.main()
