"""das3r_ns: from a casual video to a Gaussian reconstruction of its static scene, as a Nerfstudio method.

One way through the house: video -> frames -> predictor -> scene folder -> dataparser outputs -> model -> outputs.
Importing this package imports nothing heavy.
"""

__version__ = "0.2.0"
