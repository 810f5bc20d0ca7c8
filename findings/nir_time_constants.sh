#!/usr/bin/env bash
# NIR: one membrane, three time constants in the file, by the framework that wrote it.
#
# One would assume: NIR gives tau in seconds, so a leaky neuron (the membrane keeps 0.9 of itself each step,
#   threshold 1, reset to 0) written by one framework fires alike wherever the file is read.
# True: snntorch and spikingjelly agree (a step of 1e-4 s, tau 1e-3 s, resistance tau/dt). sinabs writes tau in
#   STEPS with resistance 1: 9.5, which others take for 9.5 seconds. norse multiplies by its step once too
#   often: its 0.01 s is written as 1e-5 s. Every file loads. On a constant input the neuron that fires 250 times
#   in 1000 steps at home fires 0 times abroad, and norse's, silent at home (its input is scaled by 0.1), fires
#   at each step, even when norse reads its own file.
# What it means for a mapper: the activity that prices every link comes from simulating the file. A silent or
#   a saturated layer looks like a very easy or a very hard mapping problem. Ask which framework wrote a file,
#   and compare a firing rate with the training framework before any search.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3.11}" -m venv "$work/venv"
pip() { "$work/venv/bin/pip" "$@"; }
# sinabs 3.1.3 wants nir <= 1.0.4, the others a newer one: sinabs writes first, then the environment moves on.
# samna (the driver of SynSense's boards) is left out: writing NIR does not need it.
pip install -qq torch==2.13.0 numpy==2.4.6 h5py==3.16.0 nir==1.0.4 nirtorch==2.0.2 pbr==7.1.3 matplotlib==3.11.2
pip install -qq --no-deps sinabs==3.1.3
cat >"$work/write_sinabs.py" <<'PY'
import math
import sys

import nir
import sinabs.layers
import sinabs.nir
import torch

weight = torch.nn.Linear(4, 4, bias=False)
weight.weight.data = torch.eye(4) * 0.3
tau_in_steps = torch.ones(4) * (-1 / math.log(0.9))  # sinabs' decay is exp(-1 / tau)
neuron = sinabs.layers.LIFSqueeze(tau_mem=tau_in_steps, spike_threshold=torch.ones(4), batch_size=1, norm_input=False)
print("at home: sinabs", int(torch.nn.Sequential(weight, neuron)(torch.ones(1000, 4)).sum()) // 4)
neuron.reset_states()
nir.write(sys.argv[1], sinabs.nir.to_nir(torch.nn.Sequential(weight, neuron), torch.ones(5, 4)))
PY
nice "$work/venv/bin/python" -W ignore "$work/write_sinabs.py" "$work/sinabs.nir"
pip uninstall -qq -y sinabs
pip install -qq torch==2.13.0 nir==1.0.8 nirtorch==2.6 snntorch==1.0.0 norse==1.1.0 spikingjelly==2.0.0
cat >"$work/show.py" <<'PY'
import logging
import sys
from importlib.metadata import version
from pathlib import Path

import nir
import norse.torch as norse
import snntorch
import torch
from snntorch.export_nir import export_to_nir
from snntorch.import_nir import import_from_nir
from spikingjelly.activation_based import neuron, nir_exchange

logging.disable(logging.WARNING)
folder, steps = Path(sys.argv[1]), 1000
print(*(f"{name} {version(name)}" for name in ("nir", "nirtorch", "snntorch", "spikingjelly", "norse")), "sinabs 3.1.3")
weight = torch.nn.Linear(4, 4, bias=False)
weight.weight.data = torch.eye(4) * 0.3
leaky = snntorch.Leaky(
    beta=torch.full((4,), 0.9), threshold=torch.ones(4), init_hidden=True, reset_mechanism="zero", reset_delay=False
)
in_snntorch = torch.nn.Sequential(weight, leaky)
nir.write(folder / "snntorch.nir", export_to_nir(in_snntorch, torch.ones(1, 4), ignore_dims=[0]))
in_spikingjelly = torch.nn.Sequential(weight, neuron.LIFNode(tau=10.0, decay_input=False))
nir.write(folder / "spikingjelly.nir", nir_exchange.export_to_nir(in_spikingjelly, torch.ones(1, 4)))
parameters = norse.LIFBoxParameters(  # 100 per second: a time constant of 0.01 s, ten steps of norse's 0.001 s
    tau_mem_inv=torch.full((4,), 100.0), v_leak=torch.zeros(4), v_th=torch.ones(4), v_reset=torch.zeros(4)
)
box = norse.SequentialState(weight, norse.LIFBoxCell(p=parameters, dt=0.001))
nir.write(folder / "norse.nir", norse.to_nir(box, torch.ones(4)))


def spikes(network):
    state, total = None, 0.0
    for _ in range(steps):
        out, state = network(torch.ones(1, 4), state)
        total += float((out[0] if isinstance(out, tuple) else out).sum())
    return round(total / 4)


leaky.reset_mem()
in_spikingjelly[1].reset()
home = {
    "snntorch": spikes(lambda x, _: (in_snntorch(x), None)),
    "spikingjelly": spikes(lambda x, _: (in_spikingjelly(x), None)),
    "norse": spikes(box),
}
print("RESULT at home:", *(f"{name} {count}" for name, count in home.items()), f"spikes of a neuron in {steps} steps")
readers = {"snntorch": import_from_nir, "spikingjelly": nir_exchange.import_from_nir, "norse": norse.from_nir}
rows = {}
for writer in ("snntorch", "spikingjelly", "sinabs", "norse"):
    path = folder / f"{writer}.nir"
    node = next(n for n in nir.read(path).nodes.values() if isinstance(n, nir.LIF))
    rows[writer] = []
    for read in readers.values():
        try:
            rows[writer].append(spikes(read(nir.read(path))))
        except ValueError:
            rows[writer].append("refused")
    tau, r = float(node.tau.ravel()[0]), float(node.r.ravel()[0])
    print(f"RESULT written by {writer:13} tau {tau:<8.3g} r {r:<5.3g} spikes as read by",
          *(f"{name} {count}" for name, count in zip(readers, rows[writer])))
expected = {
    "snntorch": [250, 250, 0],
    "spikingjelly": [250, 250, 0],
    "sinabs": [0, 0, 0],
    "norse": [1000, "refused", 1000],
}
if rows != expected or home != {"snntorch": 250, "spikingjelly": 250, "norse": 0}:
    raise SystemExit(f"CHANGED: expected {expected}")
print("RESULT HOLDS")
PY
nice "$work/venv/bin/python" -W ignore "$work/show.py" "$work" >"$work/log" 2>"$work/err" || { tail -5 "$work/log" "$work/err"; exit 1; }
grep -E "^(RESULT|nir )" "$work/log" | sed 's/^RESULT //'
