"""Stand-ins for the classes of Intel's closed extension of Lava, so that Lava's compiler runs to its end without it.

They let neurons and connections be compiled "for neurocores": Lava's own Compiler groups processes, makes channels and
calls its Mapper, which hands out virtual cores. Nothing can be run on what comes out. The names are those that Lava
0.10 imports where the extension is there. Needs lava-nc, thus Python 3.10, and has to be installed before Lava's
compiler is imported.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any


def install() -> None:
    """Put the stand-ins where Lava looks for the extension; raises ImportError where the compiler is there already."""
    if "lava.magma.compiler.compiler" in sys.modules:
        raise ImportError("the stand-ins have to be installed before lava.magma.compiler.compiler is imported")
    from lava.magma.compiler.builders.interfaces import AbstractProcessBuilder
    from lava.magma.core.model.model import AbstractProcessModel

    def of(base: type, *names: str) -> dict[str, type]:
        return {name: type(name, (base,), {}) for name in names}

    c_models = of(AbstractProcessModel, "AbstractCProcessModel")
    c_models |= of(c_models["AbstractCProcessModel"], "CLoihiProcessModel")
    modules: dict[str, dict[str, type]] = {
        "core.model.c.model": c_models,
        "core.model.c.ports": of(object, "AbstractCPort", "CInPort", "COutPort", "CRefPort"),
        "core.model.nc.model": of(AbstractProcessModel, "AbstractNcProcessModel"),
        "compiler.builders.c_builder": of(AbstractProcessBuilder, "CProcessBuilder"),
        "compiler.builders.nc_builder": {"NcProcessBuilder": _builder(AbstractProcessBuilder)},
        "compiler.subcompilers.c.cproc_compiler": of(object, "CProcCompiler"),
        "compiler.subcompilers.nc.ncproc_compiler": {"NcProcCompiler": NcProcCompiler},
        "compiler.subcompilers.nc.neurocore.n3_logical_neurocore": of(object, "N3LogicalNeuroCore"),
        "compiler.channels.cpychannel": of(object, "CPyChannel", "PyCChannel"),
        "compiler.channels.pyncchannel": of(object, "PyNcChannel"),
        "compiler.channels.ncpychannel": of(object, "NcPyChannel"),
        "runtime.runtime_services.nxsdk_runtime_service": of(object, "NxSdkRuntimeService"),
    }
    for name, classes in modules.items():
        _put(f"lava.magma.{name}", classes)


def _put(name: str, classes: Mapping[str, type]) -> None:
    parents = name.split(".")[:-1]
    for i in range(2, len(parents) + 1):
        parent = ".".join(parents[:i])
        if parent not in sys.modules and importlib.util.find_spec(parent) is None:
            sys.modules[parent] = types.ModuleType(parent)
            sys.modules[parent].__path__ = []
    sys.modules[name] = module = types.ModuleType(name)
    for key, cls in classes.items():
        setattr(module, key, cls)


def models(process_classes: Iterable[type]) -> dict[type, type]:
    """Return a model for neurocores for each class of processes, as `exception_proc_model_map` takes them."""
    from lava.magma.core.model.nc.model import AbstractNcProcessModel
    from lava.magma.core.resources import Loihi2NeuroCore
    from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

    return {
        cls: type(
            f"StandInOf{cls.__name__}",
            (AbstractNcProcessModel,),
            {
                "implements_process": cls,
                "implements_protocol": LoihiProtocol,
                "required_resources": [Loihi2NeuroCore],
                "tags": [],
            },
        )
        for cls in process_classes
    }


class NcProcCompiler:
    """Cuts neurons into as many logical cores as `compile_config["stand_in_cores"]` says, by the process's name.

    Other processes, such as connections, have no cores of their own: they are on those of the neurons they lead to.
    """

    def __init__(self, processes: list[Any], compile_config: Mapping[str, Any]) -> None:
        self.processes, self.cores = processes, compile_config.get("stand_in_cores", {})

    def compile(self, channel_map: Any, partitioning: Any = None) -> Any:
        """Add the ports of the processes to the channels, as Lava's own compilers do."""
        from lava.magma.compiler.subcompilers.channel_map_updater import ChannelMapUpdater

        updater = ChannelMapUpdater(channel_map)
        for process in self.processes:
            updater.add_src_ports(process.out_ports)
            updater.add_src_ports(process.ref_ports)
            updater.add_dst_ports(process.in_ports)
            updater.add_dst_ports(process.var_ports)
        return updater.channel_map

    def get_builders(self, channel_map: Any) -> tuple[dict[Any, Any], Any]:
        """Return a builder for each process that has cores."""
        from lava.magma.compiler.builders.nc_builder import NcProcessBuilder

        builders = {}
        for process in self.processes:
            builder = NcProcessBuilder(process, self.cores.get(process.name, 1))
            for port in (*process.out_ports, *process.in_ports):
                channel_map.set_port_initializer(port, builder.port_initializer(port))
            if process.name in self.cores:
                builders[process] = builder
        return builders, channel_map


def _builder(base: type) -> type:
    class NcProcessBuilder(base):
        """What Lava's Mapper asks for: resources, ports and variables with logical addresses."""

        def __init__(self, process: Any, n_cores: int) -> None:
            from lava.magma.compiler.subcompilers.address import NcLogicalAddress

            super().__init__(process.model_class, process.id)
            self.n_cores = n_cores
            self.proc_params = process.proc_params
            self.compiled_resources = [
                types.SimpleNamespace(l_address=NcLogicalAddress(0, core)) for core in range(n_cores)
            ]
            self.var_id_to_var_model_map = {var.id: self._variable(var) for var in process.vars}
            self.io_ports: dict[str, Any] = {}
            self.var_ports: dict[str, Any] = {}
            self.virtual: list[Any] = []

        def _variable(self, var: Any = None) -> Any:
            from lava.magma.compiler.var_model import LoihiAddress, NcVarModel

            return NcVarModel(var=var, address=[LoihiAddress(-1, -1, 0, i, 0, 1, 1) for i in range(self.n_cores)])

        def port_initializer(self, port: Any) -> Any:
            from lava.magma.compiler.utils import LoihiPortInitializer

            made = LoihiPortInitializer(port.name, port.shape, int, type(port).__name__, 64, var_model=self._variable())
            self.io_ports[port.name] = made
            return made

        def map_to_virtual(self, addresses: list[Any]) -> None:
            self.virtual = addresses

        def build(self) -> None:
            return None

    return NcProcessBuilder
