"""Damaged and hostile weights of networks, and archives."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import torch
from archives import tgz_of, zip_of
from cases import Read, Runs, add, file_case
from tiny_network import TINY

from das3r_ns.evaluation.unpack import unpack
from das3r_ns.predictor.network.model import PairwiseNetwork
from das3r_ns.predictor.network.weights import load_network, save_weights

# --- Weights ----------------------------------------------------------------------------------------------------------


def _weights(change: Callable[[Path], object]) -> Callable[[Path], Read]:
    def prepare(folder: Path) -> Read:
        saved = save_weights(PairwiseNetwork(TINY), folder / "weights")
        change(saved)
        return lambda: load_network(saved)

    return prepare


def _shortened(kept: int) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:kept])

    return change


def _header(content: bytes, promised: int | None = None) -> Callable[[Path], object]:
    length = struct.pack("<Q", len(content) if promised is None else promised)
    return lambda folder: (folder / "model.safetensors").write_bytes(length + content)


for _kept in (0, 5, 1000, -64):
    add("weights", f"{_kept} bytes of them", _weights(_shortened(_kept)), "damaged or cut short")
add("weights", "a header of 2^60 bytes", _weights(_header(b"{}", 2**60)), "damaged or cut short")
TERABYTES = b'{"enc_norm.bias":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
add("weights", "a tensor beyond the file", _weights(_header(TERABYTES)), "damaged or cut")
add("weights", "a header that is no JSON", _weights(_header(b"{]")), "damaged or cut short")
add("weights", "no tensors", _weights(_header(b"{}")), "missing")
add("weights", "settings cut short", _weights(lambda f: (f / "config.json").write_text("{")), "damaged")
add("weights", "settings a list", _weights(lambda f: (f / "config.json").write_text("[]")), "config.json")
for _key, _value in (
    ("enc_depth", 10**9),
    ("dec_embed_dim", 10**12),
    ("enc_num_heads", 0),
    ("patch_size", -1),
    ("dec_depth", 1e400),
):
    add(
        "weights", f"settings with {_key} {_value}",
        _weights(lambda f, k=_key, v=_value: (f / "config.json").write_text(json.dumps({**TINY.to_hub(), k: v}))),
        f"config.json.*{_key}|infinity",
    )  # fmt: skip
add("weights", "no settings", _weights(lambda f: (f / "config.json").unlink()), "without config.json")


def _weights_with_code(whole: bool) -> Callable[[Path], Read]:
    def prepare(folder: Path) -> Read:
        path = folder / "last.pth"
        content = {"model": {"enc_norm.bias": torch.zeros(1)}, "args": Runs(folder / "executed")}
        if whole:
            torch.save(content, path)
        else:
            path.write_bytes(pickle.dumps(Runs(folder / "executed")))
        return lambda: load_network(path)

    return prepare


add("weights", "code in a training checkpoint", _weights_with_code(True), "Nothing was loaded")
add("weights", "a pickle alone", _weights_with_code(False), "Nothing was loaded|damaged")


# --- Archives ---------------------------------------------------------------------------------------------------------


def _unpacked(path: Path) -> object:
    return unpack([path], path.parent / "inside")


for _ending, _pack in (("zip", zip_of), ("tgz", tgz_of)):
    for _way in ("../executed", "/tmp/das3r-executed", "a/../../executed", "..\\executed", "C:\\executed"):
        file_case(
            "archive", f"{_ending} with {_way}", f"a.{_ending}", _pack({"fine.txt": b"1", _way: b"2"}), _unpacked,
            "leads out of its folder",
        )  # fmt: skip
    _whole = _pack({"a.bin": os.urandom(6000), "b.bin": os.urandom(6000)})
    for _share in (0.02, 0.5, 0.97):
        file_case(
            "archive", f"{_share} of a {_ending}", f"a.{_ending}", _whole[: int(_share * len(_whole))], _unpacked,
            "damaged|archive",
        )  # fmt: skip
file_case("archive", "text", "a.zip", b"<html>404</html>", _unpacked, "is damaged")
file_case("archive", "empty", "a.zip", b"", _unpacked, "archive|damaged|empty")
