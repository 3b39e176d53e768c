"""Where settings are found that earlier releases saved under another module.

A `config.yml` names the module of every class of settings. A module that was taken apart or renamed stands here with
the one that holds its settings now; `das3r_ns.predictor` enters them in `sys.modules`, where Python's import looks
first. Settings import nothing heavy, so this costs nothing. Names of classes and fields: `files/saved_config.py`.
"""

import sys
from importlib import import_module

MOVED_SETTINGS = {
    "alignment": "network.settings",
    "alignment.optimise": "network.settings",
    "features": "cameras.config",
    "mapping": "cameras.config",
    "network_settings": "network.settings",
    "pairs": "network.settings",
    "windows": "network.settings",
}
"""Old module -> module that holds its settings, both within `das3r_ns.predictor`. Rows are never taken out."""


def enter_moved_modules() -> None:
    """Let the old module names be imported."""
    for old, new in MOVED_SETTINGS.items():
        sys.modules.setdefault(f"das3r_ns.predictor.{old}", import_module(f"das3r_ns.predictor.{new}"))
