"""What has to be compiled is said once; what the cache holds is not."""

import subprocess
import sys
from pathlib import Path

LOOPS = """
import numpy as np
from das3r_ns.predictor.depth.fusion import fuse_inverse_depth
from das3r_ns.predictor.masks.edge_aware_filter import smooth_within_edges

one = np.ones((4, 6), np.float32)
smooth_within_edges(one, one[..., None], 2.0, 0.3)
fuse_inverse_depth(one, one, one[None], one[None], np.eye(3)[None], np.zeros((1, 3)))
print("done")
"""


def test_compiling_is_said_once_and_not_where_the_cache_has_it(tmp_path: Path) -> None:
    script = tmp_path / "loops.py"
    script.write_text(LOOPS)
    env = {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(Path(__file__).parents[2])}
    said = [
        subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert all(text.endswith("done\n") for text in said)
    assert said[0].count("Compiling pixel loops") == 1
    assert "Compiling" not in said[1]
