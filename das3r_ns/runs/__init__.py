"""A run on disk: its `config.yml`, its checkpoints, the scene it was trained on.

Everything here may come from a stranger. Nothing that a file says is executed: `config_file` knows classes of settings
and nothing else, `checkpoints` reads tensors and nothing else.
"""
