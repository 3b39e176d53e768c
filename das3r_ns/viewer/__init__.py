"""The panel that nerfstudio's viewer shows for the methods of this package, in `ns-train` and `ns-viewer` alike.

The host asks the pipeline for objects of `ViewerControl` and hands them its viewer: `panel.ClipPanel` is one. Nothing
of the host is replaced but the drawing of the training cameras (`frusta.ClipViewer`).
"""
