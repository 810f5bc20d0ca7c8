"""SANA-FE as an outside opinion: an independent simulator of neuromorphic chips (Boyle et al., IEEE TCAD 44(8), 2025).

It is GPL software, so it is never imported here: a Python that has it runs processes/sanafe_worker.py, one process for
each mapping. What its model has no place for comes from the analytic model (docs/sanafe.md).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from neuromap_moo.arrays import IndexArray, IntArray
from neuromap_moo.errors import InputError, did_you_mean, finite_number, last_line, whole_number
from neuromap_moo.mapping.mapping import MappingBatch
from neuromap_moo.models.analytic import AnalyticEvaluator
from neuromap_moo.models.metrics import Metrics, metrics_of
from neuromap_moo.models.packet import drawn_spikes
from neuromap_moo.partition.fixed import AnyPartitioner, FixedPartitioner
from neuromap_moo.processes import SANAFE_WORKER
from neuromap_moo.system.system import System
from neuromap_moo.system.topology import Mesh

TIMINGS = ("simple", "detailed")
MOST_NEURONS = 1024  # of a core; SANA-FE fails with more


class SanafeEvaluator:
    """Metrics of mappings from timesteps simulated by SANA-FE.

    Parameters
    ----------
    partitioner
        cuts layers into slices, for the same system.
    system
        where mappings go.
    python
        an interpreter that has the package sanafe; None: this one.
    timing
        SANA-FE's timing model, `simple` or `detailed`.
    steps
        timesteps, drawn once from the activity as by the packet-level evaluator.
    seed
        of the draws.
    time_limit_s
        that one mapping may take.

    Raises
    ------
    InputError
        for what SANA-FE has no model of: other topologies than a mesh of one chip, copies per route, core graphs,
        activity above 1, more than 1024 neurons on a core.

    """

    def __init__(
        self,
        partitioner: AnyPartitioner,
        system: System,
        *,
        python: str | None = None,
        timing: str = "detailed",
        steps: int = 8,
        seed: int = 0,
        time_limit_s: float = 300.0,
    ) -> None:
        if timing not in TIMINGS:
            raise InputError(f"evaluator.timing: no '{timing}'{did_you_mean(str(timing), TIMINGS)}")
        where = f"evaluator sanafe, system '{system.name}'"
        if not isinstance(system.topology, Mesh) or system.n_chips > 1:
            raise InputError(f"{where}: expected a mesh of one chip, got something else; SANA-FE knows no other")
        if system.copies != "per_core":
            raise InputError(f"{where}: expected copies: per_core, got '{system.copies}'; SANA-FE knows no other")
        if isinstance(partitioner, FixedPartitioner):
            raise InputError("evaluator sanafe: expected a network, got a core graph, which has no neurons")
        if partitioner.activity.max(initial=0.0) > 1.0:
            raise InputError(
                f"evaluator sanafe, network '{partitioner.network.name}': expected an activity of at most 1 spike per "
                f"timestep, got {partitioner.activity.max():.4g}; a neuron spikes once or not at all there"
            )
        self.partitioner, self.system = partitioner, system
        self.python = sys.executable if python is None else str(python)
        self.timing = timing
        self.time_limit_s = finite_number("evaluator.time_limit_s", time_limit_s, 0.0, "s")
        n_steps = whole_number("evaluator.steps", steps, 1)
        seed = whole_number("evaluator.seed", seed)
        self.spikes = drawn_spikes(partitioner.activity, n_steps, seed)
        self.name = f"sanafe({timing}, steps={n_steps}, seed={seed})"
        self._analytic = AnalyticEvaluator(partitioner, system)
        self._check_package()

    def evaluate(self, mappings: MappingBatch) -> Metrics:
        """Return every metric column for n mappings, (n,) each."""
        results = [self._simulate(k, cores[cores >= 0]) for k, cores in zip(*mappings, strict=True)]
        per_step = {key: np.array([np.mean(r[key]) for r in results]) for key in results[0] if key != "messages"}
        messages = np.array([r["messages"] for r in results]) / len(self.spikes)
        loads = self._analytic.loads(mappings)._replace(
            messages=messages,
            links_j=per_step["network_j"] - self.system.cost("e_message_j") * messages,
            message_hops=per_step["hops"],
            busy_s=per_step["step_s"],
            dendops_j=per_step["soma_j"],
            synops_j=per_step["synapse_j"],
        )
        return metrics_of(loads, self.system, self.partitioner.steps_per_inference, self.partitioner.depth)

    def _simulate(self, cores_per_layer: IntArray, cores: IndexArray) -> dict[str, Any]:
        sending = self.partitioner.sending(cores_per_layer)
        most = int(np.diff(sending.first).max())
        if most > MOST_NEURONS:
            raise InputError(
                f"evaluator sanafe: expected at most {MOST_NEURONS} neurons on a core, got {most}; "
                "cut the layers finer, e.g. by constraints.layers.<name>.max_neurons_per_core"
            )
        with tempfile.TemporaryDirectory(prefix="neuromap_moo_") as name:
            folder = Path(name)
            (folder / "architecture.yaml").write_text(json.dumps(self._architecture(most)), encoding="utf-8")
            job = {
                "architecture": str(folder / "architecture.yaml"),
                "timing": self.timing,
                "steps": len(self.spikes),
                "core_of_slice": self._their_cores(cores).tolist(),
                "first": sending.first.tolist(),
                "start": sending.start.tolist(),
                "dest": sending.dest.tolist(),
                "synapses": np.rint(sending.synops).astype(int).tolist(),
                "spikes": self.spikes.T.tolist(),
            }
            (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
            command = [self.python, str(SANAFE_WORKER), str(folder / "job.json"), str(folder / "result.json")]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=self.time_limit_s, cwd=folder)
            except subprocess.TimeoutExpired as error:
                raise RuntimeError(
                    f"evaluator sanafe: a mapping took more than {self.time_limit_s:g} s; raise evaluator.time_limit_s"
                ) from error
            if done.returncode != 0:
                said = last_line(done.stderr) or "nothing"
                raise RuntimeError(
                    f"evaluator sanafe: the simulator ended with code {done.returncode} and said: {said}"
                )
            result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
            return result

    def _their_cores(self, cores: IndexArray) -> IntArray:
        """Return the places of cores in SANA-FE's order: its tiles are numbered column by column, x first."""
        mesh = self.system.topology
        router, core = np.divmod(cores.astype(np.int64), mesh.cores_per_router)
        y, x = np.divmod(router, mesh.width)  # type: ignore[union-attr]
        return np.asarray((x * mesh.height + y) * mesh.cores_per_router + core)  # type: ignore[union-attr]

    def _architecture(self, n_neurons: int) -> dict[str, Any]:
        """Return this system in SANA-FE's terms: what costs nothing or is unknown there is 0."""
        mesh, cost = self.system.topology, self.system.cost
        hops = {
            f"{kind}_{way}_hop": cost(f"{ours}.{link}")
            for ours, kind in (("e_link_j", "energy"), ("t_hop_s", "latency"))
            for link, ways in (("mesh_x", ("east", "west")), ("mesh_y", ("north", "south")))
            for way in ways
        }
        message_j = cost("e_message_j") + cost("e_link_j.inject") + cost("e_link_j.eject")

        def unit(name: str, **attributes: Any) -> list[dict[str, Any]]:
            return [{"name": name, "attributes": attributes}]

        core = {
            "name": f"core[0..{mesh.cores_per_router - 1}]" if mesh.cores_per_router > 1 else "core",
            "attributes": {
                "buffer_position": "soma",
                "buffer_inside_unit": False,
                "max_neurons_supported": MOST_NEURONS,
            },
            "axon_in": unit("in", energy_message_in=0.0, latency_message_in=0.0),
            "synapse": unit(
                "synapse",
                model="current_based",
                energy_process_spike=cost("e_synop_j"),
                latency_process_spike=cost("t_synop_s"),
            ),
            "dendrite": unit("dendrite", model="accumulator", energy_update=0.0, latency_update=0.0),
            "soma": unit(
                f"neuron[0..{n_neurons - 1}]" if n_neurons > 1 else "neuron[0]",
                model="input",
                energy_access_neuron=cost("e_dendop_j"),
                latency_access_neuron=cost("t_dendop_s"),
                energy_update_neuron=0.0,
                latency_update_neuron=0.0,
                energy_spike_out=0.0,
                latency_spike_out=0.0,
            ),
            "axon_out": unit("out", energy_message_out=message_j, latency_message_out=0.0),
        }
        n = self.system.n_routers
        tile = {"name": f"tile[0..{n - 1}]" if n > 1 else "tile", "attributes": hops, "core": [core]}
        attributes = {
            "topology": "mesh",
            "width": mesh.width,  # type: ignore[union-attr]
            "height": mesh.height,  # type: ignore[union-attr]
            "link_buffer_size": 16,
            "sync_model": "fixed",
            "latency_sync": 0.0,
        }
        return {"architecture": {"name": "generated", "attributes": attributes, "tile": [tile]}}

    def _check_package(self) -> None:
        how = "install it apart, in an environment of its own (pip install 'sanafe==2.2.9'), and give evaluator.python"
        try:
            done = subprocess.run([self.python, "-c", "import sanafe"], capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InputError(f"evaluator.python '{self.python}': cannot be run ({error}); {how}") from error
        if done.returncode != 0:
            raise InputError(f"evaluator.python '{self.python}': has no package sanafe; {how}")
