#!/usr/bin/env bash
# brevitas -> QONNX: a file of 2-bit weights stores none of them, and no zero either.
#
# One would assume: the initialisers of a network exported with 2- or 4-bit weights are its weights, so the
#   zeros among them are the synapses that a sparse core need not store.
# True: QONNX keeps the float weights of training and puts a `Quant` operator behind each. Read from the
#   initialisers the network is dense, with as many different values as synapses. After `Quant`, of
#   normally distributed weights with brevitas' own scale (the largest weight), a quarter (4 bits) to nearly all
#   (2 bits) are exactly zero: rounding prunes. Training moves the shares, not the effect.
# What it means for a mapper: synapses, memory per core and the least number of cores come out too large by that
#   share, and most for the widths that neuromorphic cores use. Run the `Quant` operators on the initialisers
#   (qonnx does it) before counting anything.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install -qq torch==2.13.0 numpy==2.4.6 brevitas==0.13.4 qonnx==1.0.0 onnx==1.23.2 onnxscript==0.7.2 \
    onnxruntime==1.32.0 onnxoptimizer==0.4.2
cat >"$work/show.py" <<'PY'
import sys
from importlib.metadata import version

import brevitas.nn
import numpy as np
import torch
from brevitas.export import export_qonnx
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.custom_op.registry import getCustomOp
from qonnx.transformation.infer_shapes import InferShapes

print("RESULT", *(f"{name} {version(name)}" for name in ("torch", "brevitas", "qonnx", "onnx", "onnxscript")))
zeros = {}
for bits in (2, 3, 4, 8):
    torch.manual_seed(0)
    layer = brevitas.nn.QuantLinear(256, 128, bias=False, weight_bit_width=bits)
    torch.nn.init.normal_(layer.weight, std=0.1)
    path = f"{sys.argv[1]}/layer.onnx"
    export_qonnx(torch.nn.Sequential(layer).eval(), torch.randn(1, 256), export_path=path)
    model = ModelWrapper(path).transform(InferShapes())
    node = next(n for n in model.graph.node if n.op_type in ("Quant", "IntQuant"))
    stored = model.get_initializer(node.input[0])
    context = {name: model.get_initializer(name) for name in node.input}
    context[node.output[0]] = np.zeros_like(stored)
    getCustomOp(node).execute_node(context, model.graph)
    real = context[node.output[0]]
    in_brevitas = layer.quant_weight().value.detach().numpy()
    if not np.allclose(np.sort(real.ravel()), np.sort(in_brevitas.ravel())):
        raise SystemExit("CHANGED: qonnx and brevitas quantise to different weights")
    zeros[bits] = (int((stored == 0).sum()), float((real == 0).mean()))
    print(f"RESULT {bits} bits: stored {stored.size} weights, {zeros[bits][0]} zeros, {len(np.unique(stored))} values;",
          f"after {node.op_type} {100 * zeros[bits][1]:.1f} % zeros, {len(np.unique(real))} values")
shares = [share for _, share in zeros.values()]
if any(stored for stored, _ in zeros.values()) or shares != sorted(shares, reverse=True) or shares[0] < 0.8 or shares[2] < 0.2:
    raise SystemExit("CHANGED: see the lines above and the header")
print("RESULT HOLDS")
PY
nice "$work/venv/bin/python" -W ignore "$work/show.py" "$work" >"$work/log" 2>"$work/err" || { tail -9 "$work/log" "$work/err"; exit 1; }
grep "^RESULT" "$work/log" | sed 's/^RESULT //'
