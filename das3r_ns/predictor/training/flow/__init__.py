"""Training of the optical-flow network on worlds that are drawn while it trains: no data set, no files.

`textures`, `shapes` and `motion` make layers, `worlds` puts them over each other into pairs of images with exact
flow,
`degradations` turns them into what cameras record, `losses` and `train` are the loop, `validation` says how well it
goes.
Everything random follows from the seed, the step and the process.
"""
