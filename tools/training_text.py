#!/usr/bin/env python3
"""Fetches free text to train on: 2,000 paragraphs of Wikipedia and OpenWebText pages.

    python tools/training_text.py -o mixed.txt

They are the untouched versions of the texts of the `schelling_point` data in the Python package
`evals` 3.0.1.post1 (46 MB, fetched with pip). Wikipedia text is under CC BY-SA 3.0; the result is for
training and measuring, and is not part of this repository.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "evals==3.0.1.post1"
DATA = "evals/registry/data/schelling_point/{}_5.jsonl"


def paragraphs(archive, source):
    with archive.open(DATA.format(source)) as file:
        # Entry "0" is the original; the others are variations of it.
        return [json.loads(line)["0"].strip() for line in file]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
               "--no-deps", "-d", folder, PACKAGE]
        subprocess.run(pip, check=True)
        with zipfile.ZipFile(next(Path(folder).glob("evals-*.whl"))) as archive:
            both = [paragraphs(archive, source) for source in ("wikipedia", "owt")]
    # In turns, so that any part of the text has both.
    texts = [text for pair in zip(*both) for text in pair]
    args.output.write_text("\n\n".join(texts) + "\n")
    print(f"{args.output}: {len(texts)} paragraphs, {args.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
