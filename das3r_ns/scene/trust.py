"""How far each frame's camera is trusted, by the quality record of the prediction, and the colour that shows it."""

from typing import Any

TRUSTED_RGB, HALF_TRUSTED_RGB, DISTRUSTED_RGB = (64, 190, 110), (240, 180, 40), (225, 60, 50)
NO_RECORD_RGB = (120, 150, 190)
"""Of frames of which nothing is recorded: cameras that the user gave."""


def trust_of_frames(said: dict[str, Any], num_frames: int) -> list[float | None]:
    """Trust of each frame's camera, 0..1, by what `predictor.json` says; None where it says nothing."""
    record = said.get("quality")
    frames = record.get("frames") if isinstance(record, dict) else None
    trust = frames.get("trust") if isinstance(frames, dict) else None
    if not isinstance(trust, list) or len(trust) != num_frames:
        return [None] * num_frames
    return [float(value) if isinstance(value, (int, float)) else None for value in trust]


def colour_of_trust(trust: float | None) -> tuple[int, int, int]:
    """Colour of a frame: green for a trusted camera over amber to red, blue-grey without a record."""
    if trust is None:
        return NO_RECORD_RGB
    trust = min(max(trust, 0.0), 1.0)
    low, high, t = (
        (DISTRUSTED_RGB, HALF_TRUSTED_RGB, 2 * trust) if trust < 0.5 else (HALF_TRUSTED_RGB, TRUSTED_RGB, 2 * trust - 1)
    )
    red, green, blue = (round(a + t * (b - a)) for a, b in zip(low, high))
    return red, green, blue
