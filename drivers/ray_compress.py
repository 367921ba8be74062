"""Compresses a checkpoint on a Ray cluster: units on all nodes, merged where this runs.

    compress-model plan MODEL --preset server --units 200 -o units.json
    python drivers/ray_compress.py units.json --pieces PIECES -o OUT

The checkpoint, units.json and PIECES must be on storage that all nodes share. Units may be lost
with their node, run twice, or be done already: each gives the same piece. A unit that takes much
longer than the others is started a second time elsewhere, and whichever ends first counts.

Needs `ray` (tried with 2.60), nothing else; compress-model on every node.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import ray

# Exit codes of compress-model after which another try may help: I/O, memory, stopped, killed.
PASSING = {4, 5, 75}
# A unit is a straggler when it takes this many times as long as the median of those done.
STRAGGLER = 3.0


class Refused(Exception):
    """compress-model refused the input: no other node will think otherwise."""


@ray.remote(max_retries=-1)
def work(command: list[str]) -> dict:
    """Does one unit; Ray starts it again elsewhere when its node is lost."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout)
    message = f"exit code {done.returncode}: {done.stderr.strip()}"
    if done.returncode in PASSING or done.returncode < 0:
        raise OSError(message)
    raise Refused(message)


def run(args: argparse.Namespace) -> None:
    with open(args.units, encoding="utf-8") as file:
        count = len(json.load(file)["units"])

    def start(unit: int) -> ray.ObjectRef:
        command = [args.program, "work", args.units, "--unit", str(unit), "-o", args.pieces]
        command += ["-t", str(args.threads), "--json", "--quiet"]
        if args.model:
            command += ["--model", args.model]
        return work.options(num_cpus=args.threads).remote(command)

    begun = time.monotonic()
    tries = [1] * count
    running = {start(unit): unit for unit in range(count)}
    done: set[int] = set()
    seconds: list[float] = []
    last, again = None, set()
    while len(done) < count:
        ready, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
        for reference in ready:
            unit = running.pop(reference)
            try:
                report = ray.get(reference)
            except Exception as error:  # what a task raises is wrapped by Ray
                if unit in done:
                    continue
                refused = isinstance(getattr(error, "cause", error), Refused)
                if refused or tries[unit] >= args.tries:
                    sys.exit(f"unit {unit}, try {tries[unit]}: {error}")
                tries[unit] += 1
                running[start(unit)] = unit
                continue
            if unit in done:
                continue
            done.add(unit)
            if not report["already_done"]:
                seconds.append(report["seconds"])
            spent = time.monotonic() - begun
            eta = spent / len(done) * (count - len(done))
            print(f"{len(done)}/{count} units, {spent:.0f} s, eta {eta:.0f} s", file=sys.stderr)
        if len(seconds) < 3 or len(running) > args.spare:
            continue
        # Few are left, so all of them run: time tells which are late.
        last = last or time.monotonic()
        if time.monotonic() - last > STRAGGLER * statistics.median(seconds):
            for unit in set(running.values()) - done - again:
                print(f"unit {unit} is late: started once more", file=sys.stderr)
                again.add(unit)
                running[start(unit)] = unit

    for reference in running:
        # A copy of a unit that is done.
        ray.cancel(reference, force=True)
    command = [args.program, "merge", args.units, args.pieces, "-o", args.output]
    if args.model:
        command += ["--model", args.model]
    sys.exit(subprocess.run(command).returncode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("units", help="as `compress-model plan --units` wrote them")
    parser.add_argument("--pieces", required=True, help="folder for pieces, on shared storage")
    parser.add_argument("-o", "--output", required=True, help="output folder")
    parser.add_argument("--model", help="where nodes have the checkpoint, if not where plan had it")
    parser.add_argument("--program", default="compress-model", help="the program on every node")
    parser.add_argument("--threads", type=int, default=1, help="cores for each unit")
    parser.add_argument("--tries", type=int, default=4, help="times that a unit may fail")
    parser.add_argument("--spare", type=int, default=4, help="units at the end that may run twice")
    parser.add_argument("--address", help="of the cluster; without it Ray's own rules apply")
    args = parser.parse_args()
    ray.init(address=args.address, log_to_driver=False)
    run(args)


if __name__ == "__main__":
    main()
