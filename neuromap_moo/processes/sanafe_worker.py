"""Simulate one mapping with SANA-FE: python sanafe_worker.py JOB.json RESULT.json.

Runs alone, by a Python that has the package sanafe (GPL), and imports nothing of this project: see evaluate/sanafe.py
for what is in a job. A simulated chip cannot be loaded again, so each mapping gets a process.
"""

import json
import sys

import sanafe


def main() -> None:
    """Build the network of a job, simulate it, and write what came of it."""
    with open(sys.argv[1], encoding="utf-8") as f:
        job = json.load(f)
    chip_of = sanafe.load_arch(job["architecture"])
    cores = chip_of.cores()
    network = sanafe.Network()
    neurons = []
    first = job["first"]
    for i, core in enumerate(job["core_of_slice"]):
        group = network.create_neuron_group(f"slice{i}", first[i + 1] - first[i])
        for j, neuron in enumerate(group):
            spikes = job["spikes"][first[i] + j]
            neuron.set_attributes(soma_hw_name=f"neuron[{j}]", model_attributes={"spikes": spikes})
            neuron.map_to_core(cores[core])
            neurons.append(neuron)
    start, dest, synapses = job["start"], job["dest"], job["synapses"]
    for i, neuron in enumerate(neurons):
        for e in range(start[i], start[i + 1]):
            target = first[dest[e]]
            for j in range(synapses[e]):
                neuron.connect_to_neuron(neurons[target + j], {"weight": 0.0})
    chip = sanafe.SpikingChip(chip_of)
    chip.load(network)
    run = chip.sim(job["steps"], timing_model=job["timing"], perf_trace=True)
    trace = run["perf_trace"]
    result = {
        "step_s": trace["sim_time"],
        "soma_j": trace["soma_energy"],
        "synapse_j": trace["synapse_energy"],
        "network_j": trace["network_energy"],
        "hops": trace["hops"],
        "messages": run["packets_sent"],
    }
    with open(sys.argv[2], "w", encoding="utf-8") as f:
        json.dump(result, f)


if __name__ == "__main__":
    main()
