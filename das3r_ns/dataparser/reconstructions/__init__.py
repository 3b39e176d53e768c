"""Cameras, depth and masks as other programs write them: one file for each program, and a table of all.

`table.find_reader` tells by the content which program wrote a file or folder. A reader returns a `Reconstruction` in
the program's own pixels, axes and numbering; `assign` brings that to the frames of a clip.
"""
