"""The two PSNRs, clean PSNR and SSIM against the reference's recorded numbers, hand-worked cases and scikit-image."""

import math

import numpy as np
import pytest
import torch

from das3r_ns.evaluation.metrics import clean_psnr, paper_psnr, psnr, ssim_map, static_psnr, static_ssim


@pytest.fixture
def recorded(data) -> dict[str, torch.Tensor]:
    z = np.load(data / "losses.npz")
    images = {name: torch.from_numpy(z[f"gs/{name}"]).permute(1, 2, 0) for name in ("render", "gt")}
    return {
        **images,
        "dynamic": torch.from_numpy(z["psnr/gt_dynamic_mask"]) > 0.5,
        **{k: torch.from_numpy(np.asarray(z[k])) for k in z.files if k.startswith(("psnr/", "gs/ssim"))},
    }


def test_paper_psnr_is_the_reference_s(recorded):
    value = paper_psnr(recorded["render"], recorded["gt"], recorded["dynamic"])
    assert value == pytest.approx(float(recorded["psnr/test_mean"]), abs=2e-5)


def test_static_psnr_is_the_area_normalised_value_recorded_beside_it(recorded):
    value = static_psnr(recorded["render"], recorded["gt"], recorded["dynamic"])
    assert value == pytest.approx(float(recorded["psnr/not_reference_static_area_normalised"]), abs=2e-5)


def test_ssim_map_is_the_reference_s_pixel_by_pixel(recorded):
    value = ssim_map(recorded["render"].double(), recorded["gt"].double()).permute(2, 0, 1)
    expected = recorded["gs/ssim_unmasked_map"].double()
    # Variances are differences of large numbers: the reference's float32 is off by up to 1e-4 in single pixels.
    torch.testing.assert_close(value, expected, atol=2e-4, rtol=0)
    assert float(value.mean()) == pytest.approx(float(expected.mean()), abs=1e-6)


def test_an_error_of_a_tenth_everywhere_is_twenty_decibels():
    truth = torch.full((6, 8, 3), 0.5)
    nothing_moves = torch.zeros(6, 8, dtype=torch.bool)
    for value in (
        psnr(truth + 0.1, truth),
        paper_psnr(truth + 0.1, truth, nothing_moves),
        static_psnr(truth + 0.1, truth, nothing_moves),
        clean_psnr(truth + 0.1, truth, ~nothing_moves),
    ):
        assert value == pytest.approx(20.0, abs=1e-5)


def test_paper_psnr_flatters_by_ten_log_of_the_inverse_static_share():
    truth = torch.full((10, 10, 3), 0.5)
    dynamic = torch.zeros(10, 10, dtype=torch.bool)
    dynamic[:, :9] = True  # a tenth is static: ten decibels more
    render = truth + 0.1
    assert static_psnr(render, truth, dynamic) == pytest.approx(20.0, abs=1e-5)
    assert paper_psnr(render, truth, dynamic) == pytest.approx(30.0, abs=1e-5)


def test_what_the_render_shows_in_place_of_the_moving_object_counts_in_clean_psnr_alone():
    truth, clean = torch.full((8, 8, 3), 0.5), torch.full((8, 8, 3), 0.2)
    dynamic = torch.zeros(8, 8, dtype=torch.bool)
    dynamic[2:4, 2:4] = True
    render = truth.clone()
    render[dynamic] = 0.3
    assert static_psnr(render, truth, dynamic) == math.inf
    assert paper_psnr(render, truth, dynamic) == math.inf
    assert clean_psnr(render, clean, dynamic) == pytest.approx(20.0, abs=1e-5)


def test_images_are_clamped_before_they_are_compared():
    truth, nothing = torch.ones(4, 4, 3), torch.zeros(4, 4, dtype=torch.bool)
    assert static_psnr(truth + 5, truth, nothing) == math.inf


def test_a_number_that_no_pixel_speaks_for_is_nan():
    image = torch.rand(16, 16, 3)
    everything = torch.ones(16, 16, dtype=torch.bool)
    assert math.isnan(static_psnr(image, image, everything))
    assert math.isnan(static_ssim(image, image, everything))
    assert math.isnan(clean_psnr(image, image, ~everything))


def test_ssim_agrees_with_scikit_image_away_from_the_edge():
    from skimage.metrics import structural_similarity

    generator = torch.Generator().manual_seed(1)
    a = torch.rand(40, 50, 3, generator=generator, dtype=torch.float64)
    b = (a + 0.1 * torch.randn(40, 50, 3, generator=generator, dtype=torch.float64)).clamp(0, 1)
    _, reference = structural_similarity(
        a.numpy(), b.numpy(), channel_axis=-1, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, data_range=1.0, full=True,
    )  # fmt: skip
    np.testing.assert_allclose(ssim_map(a, b).numpy()[6:-6, 6:-6], reference[6:-6, 6:-6], atol=1e-6)


def test_static_ssim_does_not_see_the_moving_object_even_at_its_rim():
    generator = torch.Generator().manual_seed(2)
    truth = torch.rand(48, 48, 3, generator=generator)
    dynamic = torch.zeros(48, 48, dtype=torch.bool)
    dynamic[18:30, 18:30] = True
    render = truth.clone()
    render[dynamic] = 0.0
    assert static_ssim(render, truth, dynamic) == pytest.approx(1.0, abs=1e-9)
    assert float(ssim_map(render, truth)[~dynamic].mean()) < 0.99


def test_lpips_is_left_out_with_one_warning_when_its_weights_cannot_be_had(monkeypatch):
    import torchmetrics.image.lpip as lpip

    from das3r_ns.evaluation.metrics import perceptual

    def no_network(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(lpip, "LearnedPerceptualImagePatchSimilarity", no_network)
    perceptual._network.cache_clear()
    image, nothing = torch.rand(64, 64, 3), torch.zeros(64, 64, dtype=torch.bool)
    with pytest.warns(UserWarning, match="LPIPS is left out"):
        assert perceptual.static_lpips(image, image, nothing) is None
    assert perceptual.static_lpips(image, image, nothing) is None  # a second warning would be an error below
    perceptual._network.cache_clear()


def test_lpips_blackens_what_moves_before_it_looks(monkeypatch):
    from das3r_ns.evaluation.metrics import perceptual

    class Difference:
        device = "cpu"

        def __call__(self, a, b):
            return (a - b).abs().sum()

    monkeypatch.setattr(perceptual, "_network", lambda: Difference())
    truth = torch.rand(8, 8, 3)
    dynamic = torch.zeros(8, 8, dtype=torch.bool)
    dynamic[2:5, 2:5] = True
    render = truth.clone()
    render[dynamic] = 1 - render[dynamic]
    assert perceptual.static_lpips(render, truth, dynamic) == 0.0
