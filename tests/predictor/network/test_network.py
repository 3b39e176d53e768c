"""The network against numbers recorded from the published implementation (weights rebuilt from their keys)."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from das3r_ns.predictor.network.config import PairwiseNetworkConfig
from das3r_ns.predictor.network.model import PairwiseNetwork
from das3r_ns.predictor.network.transformer import grid_positions, rope_table, rotate

CASES = ["landscape", "portrait", "mixed", "odd"]


def rule_weight(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The fixture's weight of a canonical key (see the rule in the fixtures' README)."""
    z = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
    if key.endswith(".bias"):
        return torch.from_numpy(np.float32(0.02) * z)
    if len(shape) == 1:
        return torch.from_numpy(1 + np.float32(0.1) * z)
    gain = 0.35 if key.endswith("dpt.head.4.weight") else 1.0
    return torch.from_numpy(np.float32(gain / np.sqrt(np.prod(shape[1:]))) * z)


@pytest.fixture(scope="module")
def fixture(data: Path) -> dict[str, np.ndarray]:
    with np.load(data / "network_small.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def network(fixture: dict[str, np.ndarray]) -> PairwiseNetwork:
    network = PairwiseNetwork(PairwiseNetworkConfig.from_hub(json.loads(str(fixture["config_json"])))).eval()
    shapes = json.loads(str(fixture["weight_shapes_json"]))
    weights = {key: rule_weight(key, tuple(shape)) for key, shape in shapes.items()}
    missing, unexpected = network.load_state_dict(weights, strict=False)
    assert not unexpected
    assert len(missing) == 16
    assert all(".scratch.layer_rn." in key for key in missing)
    return network


def test_rebuilt_weights_have_the_recorded_sums(fixture, network):
    state = network.state_dict()
    for index, key in enumerate(fixture["weight_keys"]):
        weight = state[key].double().numpy()
        assert weight.sum() == pytest.approx(fixture["weight_sum"][index], rel=1e-9, abs=1e-9)
        assert np.abs(weight).sum() == pytest.approx(fixture["weight_abs_sum"][index], rel=1e-9)
        assert weight.flat[0] == fixture["weight_first"][index]


@pytest.mark.parametrize("case", CASES)
def test_every_recorded_intermediate_is_reproduced(case, fixture, network):
    def close(found: torch.Tensor, name: str, atol: float) -> None:
        expected = torch.from_numpy(fixture[f"{case}/{name}"])
        torch.testing.assert_close(found, expected, atol=atol, rtol=0, msg=lambda text: f"{case}/{name}: {text}")

    images1, images2 = (torch.from_numpy(fixture[f"{case}/img{view}"]) for view in (1, 2))
    with torch.inference_mode():
        encoded = [network.encode(images) for images in (images1, images2)]
        for view, (features, positions) in enumerate(encoded, start=1):
            close(features, f"enc_feat{view}", 2e-5)
            close(positions.expand(len(features), -1, -1), f"enc_pos{view}", 0)
        tokens = network.decode(*encoded[0], *encoded[1])
        for view, branch in enumerate(tokens, start=1):
            for depth in (1, 2, 6, 9, 12):
                close(branch[depth], f"dec{view}_{depth}", 5e-5)
        for view, (branch, images) in enumerate(zip(tokens, (images1, images2)), start=1):
            grid = network.grid(images)
            point_head = getattr(network, f"downstream_head{view}")
            mask_head = getattr(network, f"downstream_head_dynamic_mask{view}")
            close(point_head(network.select(branch), grid), f"raw_head{view}", 5e-5)
            close(mask_head(network.select(branch), grid), f"raw_mask{view}", 5e-5)
        prediction = network(images1, images2)
    close(prediction.pointmap1, "view1_pts3d", 5e-4)
    close(prediction.pointmap2, "view2_pts3d_in_other_view", 5e-4)
    for view in (1, 2):
        close(getattr(prediction, f"confidence{view}"), f"view{view}_conf", 5e-5)
        close(getattr(prediction, f"dynamic_prob{view}"), f"view{view}_dynamic_mask", 5e-5)


def test_full_size_network_has_all_published_keys_and_shapes(data):
    with torch.device("meta"):
        network = PairwiseNetwork(PairwiseNetworkConfig())
    expected = json.loads((data / "network_full_keys.json").read_text())
    assert len(expected) == 1139
    assert {key: list(weight.shape) for key, weight in network.state_dict().items()} == expected
    assert sum(weight.numel() for weight in network.parameters()) == 611_868_426


def test_config_of_the_hub_is_the_default_and_survives_a_round_trip(data):
    stored = json.loads((data / "hub_config.json").read_text())
    assert PairwiseNetworkConfig.from_hub(stored) == PairwiseNetworkConfig()
    small = PairwiseNetworkConfig(enc_embed_dim=32, enc_num_heads=2, dec_depth=4, image_size=(64, 96))
    assert PairwiseNetworkConfig.from_hub(json.loads(json.dumps(small.to_hub()))) == small


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head_type": "linear"}, "head_type = linear"),
        ({"conf_mode": ["exp", 0, float("inf")]}, "conf_mode"),
        ({"pos_embed": "cosine"}, "pos_embed"),
        ({"dec_depth": 10}, "multiple of 4"),
        ({"enc_num_heads": 7}, "encoder width 1024 over 7 heads"),
    ],
)
def test_a_config_for_another_kind_of_network_is_refused(data, change, message):
    stored = json.loads((data / "hub_config.json").read_text()) | change
    with pytest.raises(ValueError, match=message):
        PairwiseNetworkConfig.from_hub(stored)


def test_rope_turns_the_first_half_by_the_row_and_the_second_by_the_column():
    positions = grid_positions(2, 3, torch.device("cpu"))
    assert positions.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    table = rope_table(positions, head_dim=4, base=100.0)  # one frequency per axis, and base^0 = 1
    turned = rotate(torch.tensor([1.0, 0.0, 1.0, 0.0]).expand(1, 6, 1, 4), table)[0, :, 0]
    # Token 5 is row 1, column 2: (1, 0) turns by 1 and by 2 radians.
    expected = torch.tensor([np.cos(1), np.sin(1), np.cos(2), np.sin(2)], dtype=torch.float32)
    torch.testing.assert_close(turned[5], expected)
    torch.testing.assert_close(turned[0], torch.tensor([1.0, 0.0, 1.0, 0.0]))


def test_rope_scores_depend_on_the_difference_of_positions_only():
    torch.manual_seed(0)
    query, key = torch.randn(2, 16)
    near, far = torch.tensor([[2, 3], [4, 1]]), torch.tensor([[12, 8], [14, 6]])
    scores = []
    for positions in (near, far):
        table = rope_table(positions, head_dim=16, base=100.0)
        turned = rotate(torch.stack([query, key])[None, :, None], table)[0, :, 0]
        scores.append(turned[0] @ turned[1])
    torch.testing.assert_close(scores[0], scores[1])


def test_sides_that_are_no_multiples_of_the_patch_are_refused(network):
    with pytest.raises(ValueError, match="60 x 96"):
        network.encode(torch.zeros(1, 3, 60, 96))


def test_the_cached_part_of_a_head_changes_nothing(fixture, network):
    images = torch.from_numpy(fixture["odd/img1"])
    with torch.inference_mode():
        encoded = network.encode(images)
        tokens = network.select(network.decode(*encoded, *encoded)[0])
        head, grid = network.downstream_head1, network.grid(images)
        whole = head(tokens, grid)
        in_parts = head(tokens, grid, head.frame_part(encoded[0], grid))
    torch.testing.assert_close(in_parts, whole, atol=0, rtol=0)


def test_dropout_acts_in_training_only(fixture, network):
    # The published pipeline never leaves training mode, so its masks are random; ours are not.
    images = torch.from_numpy(fixture["odd/img1"])
    with torch.inference_mode():
        assert torch.equal(network(images, images).dynamic_prob1, network(images, images).dynamic_prob1)
        network.train()
        noisy = [network(images, images) for _ in range(2)]
        network.eval()
    assert not torch.equal(noisy[0].dynamic_prob1, noisy[1].dynamic_prob1)
    assert torch.equal(noisy[0].pointmap1, noisy[1].pointmap1)
