"""Weights from every layout load completely and safely, or are refused with a message that helps."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from tiny_network import TINY, small_heads

from das3r_ns.predictor.network import weights, weights_source
from das3r_ns.predictor.network.model import PairwiseNetwork
from das3r_ns.predictor.network.weights import load_network, save_weights
from das3r_ns.predictor.network.weights_source import WeightsError, weights_available

CONSTRUCTOR = (
    "AsymmetricCroCo3DStereo(pos_embed='RoPE100', patch_embed_cls='ManyAR_PatchEmbed', img_size=(32, 48), "
    "head_type='dpt', output_mode='pts3d', depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), "
    "enc_embed_dim=16, enc_depth=2, enc_num_heads=2, dec_embed_dim=16, dec_depth=4, dec_num_heads=2, "
    "freeze='encoder_and_3d_predictor', landscape_only=True)"
)
narrow = pytest.fixture(scope="module", autouse=True)(small_heads)


@pytest.fixture(scope="module")
def network() -> PairwiseNetwork:
    torch.manual_seed(3)
    return PairwiseNetwork(TINY).eval()


@pytest.fixture
def folder(network, tmp_path) -> Path:
    return save_weights(network, tmp_path / "weights")


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch):
    """No test may reach for the hub by accident."""
    monkeypatch.setattr(weights_source, "_cached_folder", lambda repository: None)
    monkeypatch.setattr(
        weights_source, "download_weights", lambda repository: pytest.fail(f"asked the hub for {repository}")
    )


def checkpoint(network: PairwiseNetwork, **changes) -> dict:
    args = argparse.Namespace(model=CONSTRUCTOR, lr=5e-5, pretrained=None)
    return {"args": args, "model": network.state_dict(), "epoch": 3, "optimizer": {"state": {}}, **changes}


def assert_same(found: PairwiseNetwork, expected: PairwiseNetwork) -> None:
    state = found.state_dict()
    for key, weight in expected.state_dict().items():
        assert torch.equal(state[key], weight), key


def test_hub_layout_survives_the_round_trip(folder, network):
    loaded, report = load_network(folder)
    assert_same(loaded, network)
    assert not loaded.training, "dropout in the mask heads must be off (fault 2)"
    assert (report.mask_heads_missing, report.second_decoder_copied) == (False, False)
    assert loaded.config == TINY
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_hub_layout_stores_each_tensor_once_and_names_the_aliases(folder, network):
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as stored:
        keys, metadata = set(stored.keys()), stored.metadata()
    absent = network.state_dict().keys() - keys
    assert len(absent) == 16
    assert {alias: metadata[alias] for alias in absent} == weights.ALIASES
    assert "Infinity" in (folder / "config.json").read_text()
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_training_checkpoint_loads_without_unpickling(tmp_path, network):
    path = tmp_path / "checkpoint-last.pth"
    torch.save(checkpoint(network), path)
    loaded, _ = load_network(path)
    assert_same(loaded, network)
    assert loaded.config == TINY


def test_weights_without_mask_heads_are_reported_and_get_fresh_heads(tmp_path, network):
    stored = checkpoint(network)
    stored["model"] = {k: w for k, w in stored["model"].items() if "dynamic_mask" not in k}
    stored["model"]["prediction_head.weight"] = torch.zeros(3)  # of CroCo's own task
    torch.save(stored, tmp_path / "dust3r.pth")
    loaded, report = load_network(tmp_path / "dust3r.pth")
    assert report.mask_heads_missing
    assert torch.equal(loaded.downstream_head1.dpt.head[4].weight, network.downstream_head1.dpt.head[4].weight)
    assert all(p.isfinite().all() and not p.is_meta for p in loaded.parameters())


def test_one_decoder_serves_both_images(tmp_path, network):
    stored = checkpoint(network)
    stored["model"] = {k: w for k, w in stored["model"].items() if not k.startswith("dec_blocks2.")}
    torch.save(stored, tmp_path / "croco.pth")
    loaded, report = load_network(tmp_path / "croco.pth")
    assert report.second_decoder_copied
    first, second = loaded.dec_blocks[2].mlp.fc1.weight, loaded.dec_blocks2[2].mlp.fc1.weight
    assert torch.equal(first, second)
    assert first.data_ptr() != second.data_ptr()


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("enc_norm.bias", "1 weights missing .*enc_norm.bias"),
        ("downstream_head_dynamic_mask2.dpt.head.4.bias", "1 weights missing .*dynamic_mask2"),
        ("dec_blocks2.1.norm_y.weight", "1 weights missing .*norm_y"),
    ],
)
def test_any_other_missing_weight_is_named(tmp_path, network, lost, message):
    stored = checkpoint(network)
    del stored["model"][lost]
    torch.save(stored, tmp_path / "lost.pth")
    with pytest.raises(WeightsError, match=message):
        load_network(tmp_path / "lost.pth")


def test_unknown_weights_and_wrong_shapes_are_named(tmp_path, network):
    torch.save(
        checkpoint(network) | {"model": network.state_dict() | {"extra.weight": torch.zeros(1)}}, tmp_path / "a.pth"
    )
    with pytest.raises(WeightsError, match=r"1 unknown .*extra.weight"):
        load_network(tmp_path / "a.pth")
    torch.save(
        checkpoint(network) | {"model": network.state_dict() | {"enc_norm.bias": torch.zeros(9)}}, tmp_path / "b.pth"
    )
    with pytest.raises(WeightsError, match=r"enc_norm.bias \(9,\), expected \(16,\)"):
        load_network(tmp_path / "b.pth")


@pytest.mark.parametrize("kept", [0, 5, 1000, -64])
@pytest.mark.parametrize("layout", ["folder", "pth"])
def test_a_truncated_file_is_named_with_what_to_delete(tmp_path, folder, network, layout, kept):
    path = folder / "model.safetensors"
    if layout == "pth":
        path = tmp_path / "last.pth"
        torch.save(checkpoint(network), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsError, match="damaged or cut short") as error:
        load_network(path if layout == "pth" else folder)
    assert f"Delete {path}" in str(error.value)


def test_a_damaged_file_in_the_hubs_cache_names_the_blob_too(tmp_path, folder):
    blob = tmp_path / "blobs" / "0123"
    blob.parent.mkdir()
    blob.write_bytes(b"half a download")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(blob)
    with pytest.raises(WeightsError, match=f"and {blob}"):
        load_network(folder)


def test_a_checkpoint_with_foreign_objects_runs_none_of_their_code(tmp_path, network):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    torch.save(checkpoint(network, trap=Trap()), tmp_path / "trap.pth")
    with pytest.raises(WeightsError, match="Nothing was loaded"):
        load_network(tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()


def test_bad_config_files_are_refused(folder):
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stored | {"head_type": "linear"}))
    with pytest.raises(WeightsError, match="head_type = linear"):
        load_network(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="damaged"):
        load_network(folder)


def test_weights_that_are_nowhere(tmp_path):
    with pytest.raises(WeightsError, match=r"No weights at .*nowhere"):
        load_network(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"without config.json and model.safetensors"):
        load_network(tmp_path / "empty")


def test_availability_looks_at_this_machine_only(folder, tmp_path, monkeypatch):
    assert weights_available(folder)
    assert not weights_available(tmp_path / "nowhere")
    assert not weights_available()
    monkeypatch.setattr(weights_source, "_cached_folder", lambda repository: folder)
    assert weights_available()


def test_an_unreachable_hub_says_how_to_bring_the_weights(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def unreachable(*_, **__):
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.undo()
    monkeypatch.setattr(weights_source, "_cached_folder", lambda repository: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(WeightsError, match="hf download Kai422kx/das3r") as error:
        load_network()
    assert weights_source.WEIGHTS_SIZE in str(error.value)


def test_the_licence_is_said_once(folder, capsys, monkeypatch):
    monkeypatch.setattr(weights, "_notice_given", False)
    load_network(folder)
    load_network(folder)
    assert capsys.readouterr().out.count("non-commercial") == 1


def test_weights_that_began_at_random_have_no_licence_to_tell(folder, capsys, monkeypatch):
    monkeypatch.setattr(weights, "_notice_given", False)
    load_network(folder, published=False)
    assert "non-commercial" not in capsys.readouterr().out
