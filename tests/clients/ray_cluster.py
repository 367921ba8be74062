"""A Ray cluster of three nodes on this machine, one of which is killed while units run: the merged
folder must be the one that a single machine writes.

    python tests/clients/ray_cluster.py COMPRESS_MODEL MODEL UNITS WORK
"""

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time

import ray
from ray.cluster_utils import Cluster

DRIVER = os.path.join(os.path.dirname(__file__), "..", "..", "drivers", "ray_compress.py")


def hashes(folder: str) -> dict[str, str]:
    found = {}
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as file:
            found[name] = hashlib.sha256(file.read()).hexdigest()
    return found


def main() -> None:
    program, model, count, work = sys.argv[1:]
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    units, pieces = os.path.join(work, "units.json"), os.path.join(work, "pieces")
    whole, merged = os.path.join(work, "whole"), os.path.join(work, "merged")
    recipe = ["--preset", "server"]
    began = time.monotonic()
    subprocess.run([program, "compress", model, "-o", whole, *recipe, "-q"], check=True)
    alone = time.monotonic() - began
    subprocess.run(
        [program, "plan", model, *recipe, "--units", count, "-o", units],
        check=True,
        stdout=subprocess.DEVNULL,
    )

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    victim = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    began = time.monotonic()
    driver = subprocess.Popen(
        [sys.executable, DRIVER, units, "--pieces", pieces, "-o", merged]
        + ["--program", program, "--address", cluster.address],
    )

    def done() -> int:
        names = os.listdir(pieces) if os.path.isdir(pieces) else []
        return sum(name.startswith("unit-") for name in names)

    while done() < int(count) // 4 and driver.poll() is None:
        time.sleep(0.02)
    at = done()
    cluster.remove_node(victim, allow_graceful=False)
    print(f"a node of three was killed when {at} of {count} units were done")
    code = driver.wait()
    spent = time.monotonic() - began
    cluster.shutdown()
    assert code == 0, f"the driver ended with {code}"
    assert at < int(count), "the node was killed too late"
    assert hashes(whole) == hashes(merged), "other bytes than on one machine"
    left = [name for name in os.listdir(pieces) if not name.startswith("unit-")]
    print(f"{len(hashes(merged))} files equal; {alone:.1f} s on one machine, {spent:.1f} s here")
    print(f"left by lost workers: {left or 'nothing'}")


if __name__ == "__main__":
    main()
