"""A worker for your own chip: copy it, and put what your chip needs into `prepare` and `measure`.

    python -m neuromap_moo evaluator=device "evaluator.command='python docs/example_worker.py'"

It speaks the device protocol of docs/device.md and needs only the standard library. As it stands it measures nothing
real: the "chip" needs a microsecond for each neuron of the fullest core and a nanojoule for each core.
"""

import json
import os
import sys


class ImpossibleError(Exception):
    """This mapping can never be measured; for anything else that goes wrong, the host had better try again."""


def prepare(network, system):
    """Get ready for a network (.npz) and a system (YAML); return the chip's name and what it measures."""
    print(f"would load {network} for {system}", file=sys.stderr)  # stderr goes to the run's device/board_0.log
    return "example chip", ["latency_s", "energy_j"]


def measure(mapping, repeats):
    """Put the slices of a mapping on the cores, run it, and return the values of all repeats by metric.

    Slice i holds neurons start to stop (exclusive) of its layer, and sits on core mapping["core_of_slice"][i].
    """
    slices = mapping["slices"]
    if len(slices) > 10_000:
        raise ImpossibleError("more slices than this chip has cores")
    if os.environ.get("CHIP_IS_BUSY"):
        raise RuntimeError("the chip is busy")
    fullest = max(s["stop"] - s["start"] for s in slices)
    return {"latency_s": [fullest * 1e-6] * repeats, "energy_j": [len(slices) * 1e-9] * repeats}


def main():
    """Answer one line after the other until the host says bye or is gone."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get among the answers

    def say(**answer):
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    for line in sys.stdin:
        message = json.loads(line)
        if message["type"] == "hello":
            name, metrics = prepare(message["network"], message["system"])
            say(type="ready", name=name, metrics=metrics)
        elif message["type"] == "measure":
            number = message["id"]
            try:
                say(type="result", id=number, metrics=measure(message["mapping"], message["repeats"]))
            except ImpossibleError as error:
                say(type="error", id=number, kind="mapping", message=str(error))
            except Exception as error:
                say(type="error", id=number, kind="transient", message=str(error))
        else:  # bye
            return


if __name__ == "__main__":
    main()
