"""Correct what was decided: edits of the dynamic masks, made by hand, carried through the clip, kept beside a scene.

In: a scene folder, and a click or a stroke in one of its frames. Out: an edit in `SCENE/edits` (see `scene.edits`). The
page in the browser (`page/`, served by `server`) does nothing by itself: all it can do, `session` does.
"""
