"""Dataparser: a video, a folder of frames, a dataset with cameras or a scene folder in, nerfstudio's
`DataparserOutputs` out.

`options` says what a user can choose, `inputs` reads it (with `known_masks` and `known_cameras`), `cache` predicts
once and finds again, `training_seed_points` and `outputs` turn the scene folder into what training reads, `parser` and
`trainer` are nerfstudio's view of it all, `predict` is the command.
"""
