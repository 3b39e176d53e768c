"""`das3r` with narrow DPT heads, for tests that start training in processes of its own.

The heads of the published network have fixed widths (20 million weights each); with narrow ones a run of three steps
takes a second and writes kilobytes. Everything else is the command that users run.
"""

from das3r_ns.predictor.network import heads

NARROW = {"FEATURES": 16, "POINT_FEATURES": 8, "LEVEL_WIDTHS": (8, 8, 8, 8)}

if __name__ == "__main__":
    from das3r_ns.cli import main

    for name, value in NARROW.items():
        setattr(heads, name, value)
    main()
