# The public names and where they live; `__init__.py` imports each when it is first used.
from .errors import InputError as InputError
from .evolution.operators import operators as operators
from .evolution.varied import varied_mappings as varied_mappings
from .generators.architectures import convolutional as convolutional
from .generators.architectures import reservoir as reservoir
from .generators.architectures import transformer as transformer
from .generators.mlp import sparse_mlp as sparse_mlp
from .mapping.check import check as check
from .mapping.files import load_mappings as load_mappings
from .mapping.files import save_mappings as save_mappings
from .mapping.mapping import Mapping as Mapping
from .network.activity import lognormal_activity as lognormal_activity
from .network.activity import save_activity as save_activity
from .network.connectivity import Convolution as Convolution
from .network.connectivity import Dense as Dense
from .network.connectivity import Sparse as Sparse
from .network.files import save_network as save_network
from .network.network import (
    Layer as Layer,
)
from .network.network import (
    Network as Network,
)
from .network.network import (
    Projection as Projection,
)
from .network.network import (
    with_activity as with_activity,
)
from .network.network import (
    with_cuts as with_cuts,
)
from .network.network import (
    with_orders as with_orders,
)
from .partition.constraints import Constraints as Constraints
from .partition.constraints import LayerConstraints as LayerConstraints
from .partition.core_graph import CoreGraph as CoreGraph
from .partition.map_numbering import with_best_cuts as with_best_cuts
from .partition.neuron_order import with_shared_sources as with_shared_sources
from .problem.problem import MappingProblem as MappingProblem
from .problem.problem import baselines as baselines
from .readers.files import (
    from_relax as from_relax,
)
from .readers.files import (
    load_network as load_network,
)
from .readers.files import (
    measure_activity as measure_activity,
)
from .readers.files import (
    partition_relax as partition_relax,
)
from .results.benchmark.best_known import benchmark as benchmark
from .results.benchmark.instances import Benchmark as Benchmark
from .results.benchmark.instances import benchmarks as benchmarks
from .results.front import Front as Front
from .results.run import Run as Run
from .results.run import search as search
from .system.costs import Constant as Constant
from .system.system import System as System
from .system.system import load_system as load_system
from .system.system import mesh_system as mesh_system
from .system.topology import Graph as Graph
from .system.topology import Mesh as Mesh

__version__: str
