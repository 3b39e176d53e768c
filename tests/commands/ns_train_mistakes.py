"""Runs `ns-train` once per line of arguments (JSON on standard input), each in a process forked after the imports.

Importing nerfstudio takes longer than all mistakes together. A fork is a program of its own: its last screen and its
exit code are those of `ns-train`. Prints JSON: for each line, exit code and screen.
"""

import json
import os
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")
sys.argv = ["ns-train", "das3r-lite"]

from nerfstudio.scripts.train import entrypoint  # noqa: E402

results = []
for arguments in json.load(sys.stdin):
    with tempfile.TemporaryFile() as screen:
        child = os.fork()
        if child == 0:
            os.dup2(screen.fileno(), 1)
            os.dup2(screen.fileno(), 2)
            sys.argv = ["ns-train", *arguments]
            entrypoint()
            sys.exit()
        _, status = os.waitpid(child, 0)
        screen.seek(0)
        results.append((os.waitstatus_to_exitcode(status), screen.read().decode()))
print(json.dumps(results))
