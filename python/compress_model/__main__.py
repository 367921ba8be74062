"""Writes the weights of a compressed folder as one float32 safetensors file."""

import argparse
import sys

import numpy as np
from safetensors.numpy import save_file

from . import FormatError
from . import open as open_folder


def main():
    parser = argparse.ArgumentParser(prog="compress-model-reader", description=__doc__)
    parser.add_argument("folder", help="folder that compress-model compress wrote")
    parser.add_argument("-o", "--output", required=True, help="safetensors file to write")
    args = parser.parse_args()
    try:
        with open_folder(args.folder) as folder:
            stored = [name for name in folder.names() if folder.tied_to(name) is None]
            weights = {name: np.ascontiguousarray(folder.weight(name)) for name in stored}
            save_file(weights, args.output, metadata={"format": "pt"})
    except FormatError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 4
    print(f"{args.output}: {len(weights)} tensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
