"""Training of the pairwise network: pairs of frames with known motion in, weights that the predictor loads out.

The published recipe is the default: start from MonST3R's weights, learn the two mask heads alone on PointOdyssey.
`prepare` makes the dynamic labels of a set, `train` is the loop; the rest is one file a stage: where pairs come from
(`sources`, `pointodyssey`, `clips`, `sintel`), in which order (`order`), how they are cropped (`views`), what is
computed of them (`step`, `losses`), and how well it goes (`validation`, `logs`).

Everything random follows from the seed, the epoch and the place in the epoch, never from the time, the number of
workers or the number of processes: a resumed run sees the same data as an uninterrupted one, bit for bit.
"""
