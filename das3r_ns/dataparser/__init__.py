"""Dataparser: a video, a folder of frames or a scene folder in, nerfstudio's `DataparserOutputs` out."""
