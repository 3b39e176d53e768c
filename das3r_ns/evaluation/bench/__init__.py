"""`das3r bench`: whole sets of clips by the paper's protocol, one table.

`command` is the command, `protocol` what it measures; `sets` knows which sequences and frames a set has, `prepared`
brings a clip to the protocol's size, `worker` takes one sequence through its stages in a process of its own (with
`training`, `baselines` and `meter`), `launch` spreads workers over GPUs or a cluster, `table` collects what they wrote
and puts the `published` figures beside it.
"""

from das3r_ns.evaluation.bench.command import bench
from das3r_ns.evaluation.bench.protocol import BenchProtocol

__all__ = ["BenchProtocol", "bench"]
