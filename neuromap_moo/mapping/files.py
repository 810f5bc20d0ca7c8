"""Mappings as JSON: mappings.json of a run folder, and placement files for Lava."""

from __future__ import annotations

import json
import os
from collections import abc
from pathlib import Path
from typing import Any

from neuromap_moo.errors import InputError
from neuromap_moo.files import whole_file
from neuromap_moo.mapping.mapping import Mapping
from neuromap_moo.network.network import Network
from neuromap_moo.partition.core_graph import CoreGraph
from neuromap_moo.system.system import System

SCHEMA = 1
PLACEMENT_SCHEMA = 1  # of placement files, which workers/lava_placement.py reads


def save_mappings(
    path: str | os.PathLike[str], mappings: abc.Mapping[str, Mapping], network: Network | CoreGraph, system: System
) -> None:
    """Write mappings by id with the digests of the network and the system they belong to.

    Parameters
    ----------
    path
        file to write, whole or not at all.
    mappings
        by id.
    network
        what is mapped.
    system
        where mappings go.

    """
    entries = [entry_of(name, mapping, network) for name, mapping in mappings.items()]
    head = json.dumps({"schema": SCHEMA, "network": network.digest, "system": system.digest, **_numbering(network)})
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8") as f:
        f.write(head[:-1] + ', "mappings": [\n' + ",\n".join(json.dumps(e) for e in entries) + "\n]}\n")


def entry_of(name: str, mapping: Mapping, network: Network | CoreGraph) -> dict[str, Any]:
    """Return what mappings.json says of one mapping.

    Parameters
    ----------
    name
        id of the mapping.
    mapping
        a legal mapping.
    network
        what is mapped.

    """
    return {
        "id": name,
        "cores_per_layer": mapping.cores_per_layer,
        "slices": _slices(mapping, network),
        "core_of_slice": mapping.core_of_slice,
    }


def placement_of(name: str, mapping: Mapping, network: Network, system: System) -> dict[str, Any]:
    """Return the content of a placement file, which `workers/lava_placement.py` reads, for one mapping of a network.

    Each layer has its cores as (chip, core on the chip), slice by slice, and the neurons of each slice.

    Parameters
    ----------
    name
        id of the mapping.
    mapping
        a legal mapping.
    network
        what is mapped.
    system
        where mappings go.

    """
    per_chip = system.n_cores // system.n_chips
    layers: dict[str, dict[str, Any]] = {
        x.name: {"process": x.name, "kind": x.kind, "cores": [], "neurons": []} for x in network.layers
    }
    for s, core in zip(_slices(mapping, network), mapping.core_of_slice, strict=True):
        layers[s["layer"]]["cores"].append(divmod(core, per_chip))
        layers[s["layer"]]["neurons"].append([s["start"], s["stop"]])
    return {
        "schema": PLACEMENT_SCHEMA,
        "mapping": name,
        "network": network.digest,
        "system": system.digest,
        "layers": list(layers.values()),
    }


def _numbering(network: Network | CoreGraph) -> dict[str, Any]:
    """Return how start and stop of slices count the neurons of layers that are not numbered as they came."""
    if isinstance(network, CoreGraph):
        return {}
    cuts = {x.name: x.cut for x in network.layers if x.shape is not None}
    orders = {x.name: x.order.tolist() for x in network.layers if x.order is not None}
    return ({"cuts": cuts} if cuts else {}) | ({"orders": orders} if orders else {})


def load_mappings(path: str | os.PathLike[str]) -> tuple[dict[str, Mapping], str, str]:
    """Read mappings by id; also returns the digests of their network and system."""
    try:
        data: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise InputError(f"expected schema {SCHEMA}, got {data['schema']}")
        mappings = {m["id"]: Mapping(m["cores_per_layer"], m["core_of_slice"]) for m in data["mappings"]}
        return mappings, data["network"], data["system"]
    except OSError as error:
        raise InputError(f"'{path}': cannot be read ({error.strerror}); expected the mappings.json of a run") from error
    except InputError as error:
        raise InputError(f"'{path}': {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"'{path}': expected the mappings.json of a run, got something else ({error})") from error


def _slices(mapping: Mapping, network: Network | CoreGraph) -> list[dict[str, Any]]:
    sizes = network.cores_per_layer if isinstance(network, CoreGraph) else [x.size for x in network.layers]
    slices = []
    for name, size, n in zip(network.layer_names, sizes, mapping.cores_per_layer, strict=True):
        base, rest = divmod(size, n)
        stop = 0
        for i in range(n):
            start, stop = stop, stop + base + (i < rest)
            slices.append({"layer": name, "start": start, "stop": stop})
    return slices
