#!/usr/bin/env python3
"""Empty CUDA libraries, so that PyTorch's Linux wheel starts without the several GB of CUDA wheels.

    python stub_cuda.py VENV OUT
    LD_LIBRARY_PATH=OUT VENV/bin/python transformers_load.py ...

The wheel links to CUDA even when it computes on the CPU. This script reads which libraries and
symbols are missing and compiles a library for each, in which every function returns 0; for
cudaGetDeviceCount, whose output starts at 0, that means "no device". Needs cc and binutils. Where
a CPU build of PyTorch can be installed, use that instead.
"""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

# The libraries and the unversioned symbols that are NVIDIA's; all else is the system's business.
CUDA_LIBRARY = re.compile(r"lib(cu|nv|nccl)")
CUDA_SYMBOL = re.compile(r"(__cuda|cu|nccl|nvrtc|nvshmem)")


def output_of(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def missing_libraries(libraries):
    """The CUDA sonames that the wheel asks for and lacks."""
    present = {library.name for library in libraries}
    needed = set()
    for library in libraries:
        needed |= set(re.findall(r"\(NEEDED\).*\[(.+)\]", output_of("readelf", "-dW", library)))
    return sorted(name for name in needed - present if CUDA_LIBRARY.match(name))


def version_owners(libraries):
    """Version node -> the soname that must define it."""
    owners = {}
    for library in libraries:
        soname = None
        for line in output_of("readelf", "-VW", library).splitlines():
            if found := re.search(r"File: (\S+)", line):
                soname = found[1]
            elif soname and (found := re.search(r"Name: (\S+)\s+Flags", line)):
                owners[found[1]] = soname
    return owners


def undefined_symbols(libraries):
    """The (name, version or "") pairs that are used but defined in no library of the wheel."""
    used, defined = set(), set()
    for library in libraries:
        for line in output_of("nm", "-D", "--with-symbol-versions", library).splitlines():
            kind, symbol = line.split()[-2:]
            name, _, version = symbol.replace("@@", "@").partition("@")
            if kind == "U":
                used.add((name, version))
            else:
                defined.add(name)
    return sorted((name, version) for name, version in used if name not in defined)


def build(soname, symbols, versions, out):
    """One library `soname`; `versions` are version nodes, each with its symbols."""
    source = "".join(f"long {name}(void) {{ return 0; }}\n" for name in symbols)
    script = "".join(
        f"{version} {{ global: {' '.join(f'{name};' for name in names)} }};\n"
        for version, names in sorted(versions.items())
    )
    (out / "stub.c").write_text(source or "int stub_is_empty;\n")
    (out / "stub.map").write_text(script)
    options = ["-Wl,--version-script", out / "stub.map"] if script else []
    command = ["cc", "-shared", "-fPIC", "-fno-builtin", "-w", f"-Wl,-soname,{soname}", *options]
    subprocess.run([*command, "-o", out / soname, out / "stub.c"], check=True)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    venv, out = Path(sys.argv[1]), Path(sys.argv[2])
    folders = list(venv.glob("lib/python3*/site-packages/torch/lib"))
    if len(folders) != 1:
        sys.exit(f"error: no PyTorch in {venv}")
    libraries = sorted(p for p in folders[0].iterdir() if ".so" in p.name)
    missing = missing_libraries(libraries)
    if not missing:
        sys.exit("nothing is missing: this PyTorch needs no stubs")
    out.mkdir(parents=True, exist_ok=True)
    owners = version_owners(libraries)
    versions = {soname: defaultdict(list) for soname in missing}
    symbols = {soname: [] for soname in missing}
    for name, version in undefined_symbols(libraries):
        # An unversioned symbol is found in whichever library has it.
        soname = owners.get(version) if version else missing[0]
        if soname in symbols and (version or CUDA_SYMBOL.match(name)):
            symbols[soname].append(name)
            if version:
                versions[soname][version].append(name)
    for soname in missing:
        build(soname, symbols[soname], versions[soname], out)
    (out / "stub.c").unlink()
    (out / "stub.map").unlink()
    print(f"{out}: {len(missing)} libraries")


if __name__ == "__main__":
    main()
