#!/usr/bin/env python3
"""2-bit grid encoding side by side with llama.cpp's TQ2_0 and Q2_K, on one thread.

    python grid.py --llama-quantize BIN [--ours BIN] [--matrices 4] [--size 4096] [--rounds 5]
                   [--work DIR] [--json FILE]

Writes Gaussian F16 matrices once as a GGUF file and once as raw rows, then lets every program
encode the same weights in turn, round after round, and prints medians. Four kinds of figures:

* `tool`    llama-quantize as it reports its own time: reads, converts, encodes, writes;
* `net`     the same less a COPY pass of the whole file (llama-quantize's type COPY). COPY writes
            more than the encoded file has, so this takes off too much: it favours the peer;
* `kernel`  the encoder of libggml-base alone, called on f32 rows that are already in memory: no
            reading, no conversion from F16, no writing;
* `numpy`   gguf-py's TQ2_0 on f32 rows that are already in memory.

Ours is timed inside the program `--ours`, from F16 rows in memory to packed codes and scales.
Errors are relative: sum (w - w^)^2 / sum w^2, the peers decoded by gguf-py.
Needs numpy and gguf. Put --work on a memory file system, so that no disk is timed.
"""

import argparse
import ctypes
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import gguf
import numpy as np

PEERS = {"TQ2_0": gguf.GGMLQuantizationType.TQ2_0, "Q2_K": gguf.GGMLQuantizationType.Q2_K}
# Names that llama-quantize accepts as the square matrices of one layer.
MATRICES_OF_LAYER = ("attn_q", "attn_k", "attn_v", "attn_output")


# ------------------------------------------------------------------------------- weights


def gaussian_matrices(count, size):
    """`count` F16 matrices [size, size] of standard deviation 0.02."""
    generator = np.random.Generator(np.random.PCG64(1))
    for _ in range(count):
        yield (generator.standard_normal((size, size), np.float32) * 0.02).astype(np.float16)


def tensor_name(index):
    layer, kind = divmod(index, len(MATRICES_OF_LAYER))
    return f"blk.{layer}.{MATRICES_OF_LAYER[kind]}.weight"


def write_gguf(matrices, size, path):
    """A Llama GGUF with no more than llama-quantize asks for: attention matrices, no vocabulary."""
    layers = len(matrices) // len(MATRICES_OF_LAYER)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(size)
    writer.add_feed_forward_length(size)
    writer.add_block_count(layers)
    writer.add_head_count(size // 128)
    writer.add_head_count_kv(size // 128)
    writer.add_layer_norm_rms_eps(1e-5)
    for i, matrix in enumerate(matrices):
        writer.add_tensor(tensor_name(i), matrix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def relative_mse(matrices, decoded):
    error = energy = 0.0
    for matrix, other in zip(matrices, decoded, strict=True):
        w = matrix.astype(np.float64)
        error += float(((w - other) ** 2).sum())
        energy += float((w**2).sum())
    return error / energy


# ------------------------------------------------------------------------------ programs


def run_llama_quantize(binary, source, out, kind):
    """Seconds that llama-quantize reports for one pass on one thread."""
    command = [binary, "--pure", source, out, kind, "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"quantize time =\s*([\d.]+) ms", done.stdout + done.stderr)
    if done.returncode != 0 or not found:
        sys.exit(f"error: llama-quantize {kind} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return float(found[1]) / 1000


def decode_gguf(path):
    """The decoded matrices in the order of their indices; llama-quantize sorts them by name."""
    tensors = {t.name: t for t in gguf.GGUFReader(path).tensors}
    for i in range(len(tensors)):
        tensor = tensors[tensor_name(i)]
        yield gguf.quants.dequantize(tensor.data, tensor.tensor_type)


class Kernel:
    """ggml's own encoder, called through ctypes on rows in memory."""

    def __init__(self, library):
        self.encode = ctypes.CDLL(str(library)).ggml_quantize_chunk
        pointer, i64 = ctypes.c_void_p, ctypes.c_int64
        self.encode.argtypes = [ctypes.c_int, pointer, pointer, i64, i64, i64, pointer]
        self.encode.restype = ctypes.c_size_t

    def seconds(self, rows, kind):
        """Seconds to encode the f32 matrix `rows`."""
        block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        out = np.empty(rows.size // block * block_bytes, np.uint8)
        start = time.perf_counter()
        written = self.encode(int(kind), rows.ctypes.data, out.ctypes.data, 0, *rows.shape, None)
        elapsed = time.perf_counter() - start
        if written != out.nbytes:
            sys.exit(f"error: ggml wrote {written} bytes of {kind.name}, not {out.nbytes}")
        return elapsed


def numpy_seconds(rows):
    start = time.perf_counter()
    gguf.quants.quantize(rows, gguf.GGMLQuantizationType.TQ2_0)
    return time.perf_counter() - start


def run_ours(binary, raw, rows, columns, decoded):
    """Seconds of one pass of our encoder per scheme, and its bits per weight.

    The program prints one JSON object: {"scheme": {"seconds": s, "bits_per_weight": b}, ...} and
    writes the decoded f32 rows of each scheme to DECODED.scheme.
    """
    command = [binary, raw, str(rows), str(columns), decoded]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"error: {binary}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


# --------------------------------------------------------------------------- measurement


def measure(args, matrices, files):
    """Alternated rounds of every program: label -> list of weights per second."""
    total = sum(m.size for m in matrices)
    kernel = Kernel(args.libggml)
    f32 = matrices[0].astype(np.float32)
    rates, ours_bits = {}, {}
    note = lambda label, count, seconds: rates.setdefault(label, []).append(count / seconds)
    for _ in range(args.rounds):
        if args.ours:
            rows = total // args.size
            ours = run_ours(args.ours, files["raw"], rows, args.size, files["decoded"])
            for scheme, result in ours.items():
                note(f"ours {scheme}", total, result["seconds"])
                ours_bits[scheme] = result["bits_per_weight"]
        copy = run_llama_quantize(args.llama_quantize, files["gguf"], files["copy"], "COPY")
        for name, kind in PEERS.items():
            tool = run_llama_quantize(args.llama_quantize, files["gguf"], files[name], name)
            note(f"{name} tool", total, tool)
            note(f"{name} net", total, max(tool - copy, 1e-9))
            note(f"{name} kernel", f32.size, kernel.seconds(f32, kind))
        note("TQ2_0 numpy", f32.size, numpy_seconds(f32))
    return rates, ours_bits


def quality(matrices, files, ours_bits):
    """Scheme -> (relative MSE, bits per weight)."""
    result = {}
    for name, kind in PEERS.items():
        block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        bits = 8 * block_bytes / block
        result[name] = (relative_mse(matrices, decode_gguf(files[name])), bits)
    for scheme, bits in ours_bits.items():
        path = f"{files['decoded']}.{scheme}"
        decoded = np.memmap(path, np.float32, "r").reshape(len(matrices), *matrices[0].shape)
        result[f"ours {scheme}"] = (relative_mse(matrices, decoded), bits)
    return result


def table(rates, figures):
    """The printed lines; ratios compare each of our schemes with each peer figure."""
    medians = {label: statistics.median(r) / 1e6 for label, r in rates.items()}
    ours = [label for label in medians if label.startswith("ours ")]
    head = "".join(f"{'x ' + label:>16}" for label in ours)
    lines = [f"{'':16}{'Mweights/s':>12}{'best':>9}{'rel. MSE':>10}{'bpw':>8}{head}"]
    for label, median in medians.items():
        scheme = label if label in figures else label.split()[0]
        error, bits = figures[scheme]
        best = max(rates[label]) / 1e6
        ratios = "".join(f"{medians[o] / median:16.2f}" for o in ours)
        lines.append(f"{label:16}{median:12.1f}{best:9.1f}{error:10.4f}{bits:8.4f}{ratios}")
    return lines


def arguments():
    parser = argparse.ArgumentParser(description="2-bit encoders side by side on one thread.")
    parser.add_argument("--llama-quantize", required=True, type=Path)
    parser.add_argument("--libggml", type=Path, help="default: libggml-base.so beside the binary")
    parser.add_argument("--ours", type=Path, help="the example program grid_ours")
    parser.add_argument("--matrices", type=int, default=4, help="a multiple of 4; default: 4")
    parser.add_argument("--size", type=int, default=4096, help="rows = columns; default: 4096")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--work", type=Path, default=Path("/dev/shm/grid-bench"))
    parser.add_argument("--json", type=Path, help="also write every single figure here")
    args = parser.parse_args()
    if args.matrices < 4 or args.matrices % 4 or args.size % 256:
        parser.error("--matrices must be a multiple of 4 and --size one of 256")
    args.libggml = args.libggml or args.llama_quantize.parent / "libggml-base.so"
    return args


def main():
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    names = ("gguf", "raw", "copy", "decoded", *PEERS)
    files = {name: args.work / f"weights.{name}" for name in names}
    matrices = list(gaussian_matrices(args.matrices, args.size))
    write_gguf(matrices, args.size, files["gguf"])
    with open(files["raw"], "wb") as f:
        for matrix in matrices:
            f.write(matrix.tobytes())
    rates, ours_bits = measure(args, matrices, files)
    figures = quality(matrices, files, ours_bits)
    print(f"{args.matrices} x {args.size} x {args.size} Gaussian F16, one thread, {args.rounds} rounds")
    print("\n".join(table(rates, figures)))
    if args.json:
        args.json.write_text(json.dumps({"weights_per_second": rates, "quality": figures}, indent=2))


if __name__ == "__main__":
    main()
