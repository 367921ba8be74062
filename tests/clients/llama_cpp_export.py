#!/usr/bin/env python3
"""Runs what `compress-model export --format gguf` wrote in llama.cpp, and compares.

    python llama_cpp_export.py BINARY COMPRESSED FILE.gguf --llama-bin FOLDER [--lora FILE.gguf]

- llama-tokenize cuts the text into the tokens that tokenizer.json gives.
- llama-perplexity is within 0.5 % of `compress-model eval COMPRESSED` on the same windows.
- llama-simple continues a prompt, greedily; what it says is printed beside ours.

llama.cpp multiplies quantised weights by activations rounded to 8 bits, so that texts may part and
perplexities differ in the fourth digit. Prints one JSON object; exit code 1 says that something
differs. Needs tokenizers.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

from tokenizers import Tokenizer

REPOSITORY = Path(__file__).resolve().parents[2]
MOST_DIFFERENT = 0.005
PROMPT = "The state of the Union is"


def output(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return done


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("compressed", type=Path)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--llama-bin", type=Path, required=True)
    parser.add_argument("--lora", type=Path)
    parser.add_argument("--text", type=Path, default=REPOSITORY / "fixtures" / "eval_cc0.txt")
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--generate", type=int, default=16)
    args = parser.parse_args()

    lora = ["--lora", args.lora] if args.lora else []
    version = output(args.llama_bin / "llama-perplexity", "--version")
    found = re.search(r"version: (.+)", version.stdout + version.stderr)
    result = {"client": f"llama.cpp {found[1] if found else 'of unknown version'}", "file": args.gguf.name}

    head = args.text.read_text(encoding="utf-8")[:20000]
    tokenizer = Tokenizer.from_file(str(args.compressed / "tokenizer.json"))
    listed = output(args.llama_bin / "llama-tokenize", "-m", args.gguf, "-p", head, "--ids", "--no-bos",
                    "--log-disable").stdout  # fmt: skip
    ids = json.loads(listed[listed.rindex("[") :])
    result["same_tokens"] = ids == tokenizer.encode(head, add_special_tokens=False).ids

    log = output(args.llama_bin / "llama-perplexity", "-m", args.gguf, "-f", args.text, "-c", args.ctx,
                 "--chunks", args.windows, "-t", 1, *lora)  # fmt: skip
    result["perplexity"] = float(re.search(r"Final estimate: PPL = ([\d.]+)", log.stdout + log.stderr)[1])
    report = json.loads(output(args.binary, "eval", args.compressed, "--text", args.text, "--windows",
                               args.windows, "--ctx", args.ctx, "--json", "-q").stdout)  # fmt: skip
    result["perplexity_ours"] = report["scores"]["perplexity"]["mean"]
    result["difference"] = result["perplexity"] / result["perplexity_ours"] - 1

    if not lora:
        said = output(args.llama_bin / "llama-simple", "-m", args.gguf, "-n", args.generate, PROMPT)
        result["said"] = said.stdout.strip().splitlines()[0]
        ours = json.loads(output(args.binary, "generate", args.compressed, "--prompt", PROMPT, "-n",
                                 args.generate, "--json", "-q").stdout)  # fmt: skip
        result["said_ours"] = PROMPT + ours["model"]["text"]
    result["ok"] = result["same_tokens"] and abs(result["difference"]) <= MOST_DIFFERENT
    print(json.dumps(result, indent=2, ensure_ascii=False))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
