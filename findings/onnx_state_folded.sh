#!/usr/bin/env bash
# torch -> ONNX -> onnxruntime: a recurrent cell loses its recurrent weights, in one tool or the other.
#
# One would assume: an exporter, and an optimiser's gentlest level, may fold constants and merge biases; a weight
#   matrix of 4096 trained synapses stays.
# True: a cell called without a state makes one of zeros, and that is a constant. torch's newer exporter
#   (dynamo=True) computes the recurrent product on the spot: the matrix is gone, and a table with a row per
#   SAMPLE of the example batch stands among the initialisers instead. The older exporter keeps both products,
#   and onnxruntime's basic level, which one runs to fold batch normalisation, then does the same. All answers
#   are equal, for one step.
# What it means for a mapper: half of the synapses, all recurrent traffic and one of two weighted layers are
#   missing, and a reader that counts matrices counts the batch. Pass the state as an input when exporting, and
#   compare stored weights with the module's own count.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3.11}" -m venv "$work/venv"
"$work/venv/bin/pip" install -qq torch==2.13.0 numpy==2.4.6 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0
cat >"$work/show.py" <<'PY'
import sys
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
import torch

print("RESULT", *(f"{name} {version(name)}" for name in ("torch", "onnx", "onnxscript", "onnxruntime")))
torch.manual_seed(0)
cell = torch.nn.RNNCell(64, 64).eval()
x, state = torch.randn(5, 64), torch.zeros(5, 64)
own = sum(parameter.numel() for parameter in cell.parameters() if parameter.ndim == 2)
print(f"RESULT nn.RNNCell(64, 64) itself: 2 matrices, {own} weights")


def describe(path: str) -> tuple[int, list[tuple[int, ...]]]:
    graph = onnx.load(path).graph
    shapes = sorted(tuple(tensor.dims) for tensor in graph.initializer if len(tensor.dims) == 2)
    return sum(node.op_type in ("Gemm", "MatMul", "FusedGemm") for node in graph.node), shapes


found, optimum = {}, {}
for title, dynamo, inputs in (
    ("older, no state", False, (x,)),
    ("newer, no state", True, (x,)),
    ("older, state given", False, (x, state)),
    ("newer, state given", True, (x, state)),
):
    path, optimised = f"{sys.argv[1]}/cell.onnx", f"{sys.argv[1]}/basic.onnx"
    more = {"external_data": False} if dynamo else {}
    torch.onnx.export(cell, inputs, path, dynamo=dynamo, verbose=False, input_names=["x", "h"][: len(inputs)], **more)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = optimised
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, dict(zip(("x", "h"), (tensor.numpy() for tensor in inputs))))
    equal = np.allclose(answer, cell(x).detach().numpy(), atol=1e-5)
    found[title] = describe(path)
    products, shapes = found[title]
    after, after_shapes = optimum[title] = describe(optimised)
    print(f"RESULT {title:19} {products} products, matrices {shapes}; after onnxruntime basic {after}, {after_shapes};",
          "same answer" if equal else "OTHER answer")
square = (64, 64)
both, folded = (2, [square, square]), (1, [(5, 64), square])
before = [both, folded, both, both]
after = [folded, folded, both, both]
if list(found.values()) != before or list(optimum.values()) != after:
    raise SystemExit("CHANGED: see the lines above and the header")
print("RESULT HOLDS")
PY
nice "$work/venv/bin/python" -W ignore "$work/show.py" "$work" >"$work/log" 2>"$work/err" || { tail -9 "$work/log" "$work/err"; exit 1; }
grep "^RESULT" "$work/log" | sed 's/^RESULT //'
