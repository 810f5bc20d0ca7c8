#!/usr/bin/env bash
# sinabs -> NIR -> snntorch: an integrator without leak comes back with a leak of a tenth per step.
#
# One would assume: NIR's IF is the simplest neuron there is (add, compare, reset), so every reader makes an
#   integrator of it, or refuses.
# True: norse makes an integrator. spikingjelly refuses: sinabs writes resistance 1 where it wants 1/dt. snntorch
#   answers with its leaky neuron whose decay is a constant in its reader, 0.9, and says nothing. Whatever gets
#   less than a tenth of its threshold per step never fires again.
# What it means for a mapper: integrate-and-fire is what converted ANNs use, and they work with small inputs. A
#   network that is silent after import has no traffic and every placement is optimal. Compare one layer's
#   firing rate on both sides of each conversion.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3.11}" -m venv "$work/venv"
pip() { "$work/venv/bin/pip" "$@"; }
# sinabs 3.1.3 wants nir <= 1.0.4, the readers a newer one: sinabs writes first, then the environment moves on.
# samna (the driver of SynSense's boards) is left out: writing NIR does not need it.
pip install -qq torch==2.13.0 numpy==2.4.6 h5py==3.16.0 nir==1.0.4 nirtorch==2.0.2 pbr==7.1.3 matplotlib==3.11.2
pip install -qq --no-deps sinabs==3.1.3
cat >"$work/write_sinabs.py" <<'PY'
import sys

import nir
import sinabs.layers
import sinabs.nir
import torch

weight = torch.nn.Linear(6, 6, bias=False)
weight.weight.data = torch.diag(torch.tensor([0.02, 0.05, 0.09, 0.12, 0.4, 0.8]))
neuron = sinabs.layers.IAFSqueeze(spike_threshold=torch.ones(6), batch_size=1)
network = torch.nn.Sequential(weight, neuron)
print("sinabs 3.1.3 at home", network(torch.ones(1000, 6)).sum(0).int().tolist())
neuron.reset_states()
nir.write(sys.argv[1], sinabs.nir.to_nir(network, torch.ones(5, 6)))
PY
nice "$work/venv/bin/python" -W ignore "$work/write_sinabs.py" "$work/if.nir" | tee "$work/home"
pip uninstall -qq -y sinabs
pip install -qq torch==2.13.0 nir==1.0.8 nirtorch==2.6 snntorch==1.0.0 norse==1.1.0 spikingjelly==2.0.0
cat >"$work/show.py" <<'PY'
import sys
from importlib.metadata import version

import nir
import norse.torch as norse
import snntorch
import torch
from snntorch.import_nir import import_from_nir
from spikingjelly.activation_based import nir_exchange

print("RESULT", *(f"{name} {version(name)}" for name in ("nir", "nirtorch", "snntorch", "spikingjelly", "norse")))


def spikes(network) -> list[int]:
    state, total = None, torch.zeros(6)
    for _ in range(1000):
        out, state = network(torch.ones(1, 6), state)
        total += (out[0] if isinstance(out, tuple) else out).detach().ravel()
    return total.int().tolist()


counts = {}
for name, read in (("norse", norse.from_nir), ("spikingjelly", nir_exchange.import_from_nir), ("snntorch", import_from_nir)):
    try:
        network = read(nir.read(sys.argv[1]))
        counts[name] = spikes(network)
    except ValueError as error:
        counts[name] = f"refused: {error}"
    print(f"RESULT read by {name:13} {counts[name]}")
leaky = next(module for module in network.modules() if isinstance(module, snntorch.Leaky))
print(f"RESULT snntorch made a Leaky with beta {float(leaky.beta):.3g}")
holds = (
    counts["snntorch"][:3] == [0, 0, 0]
    and min(counts["norse"][:3]) > 0
    and str(counts["spikingjelly"]).startswith("refused")
    and abs(float(leaky.beta) - 0.9) < 1e-6
)
if not holds:
    raise SystemExit("CHANGED: see the lines above and the header")
print("RESULT HOLDS")
PY
nice "$work/venv/bin/python" -W ignore "$work/show.py" "$work/if.nir" >"$work/log" 2>"$work/err" || { tail -5 "$work/log" "$work/err"; exit 1; }
grep "^RESULT" "$work/log" | sed 's/^RESULT //'
