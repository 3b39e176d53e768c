"""Colour of a Gaussian from its direction: real spherical harmonics up to degree 3, with derivatives.

Signs and order are those of Gaussian splatting files (Kerbl et al., 2023): l = 0 .. 3, m = -l .. l, with the
Condon-Shortley phase. The colour is max(0, 0.5 + sum of coefficients times basis).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from das3r_ns.model.rasterizer.jit import as_array, in_blocks, kernel

MAX_DEGREE = 3

_BLOCK = 2048

_C0 = 0.5 * math.sqrt(1.0 / math.pi)
_C1 = 0.5 * math.sqrt(3.0 / math.pi)
_C2 = 0.5 * math.sqrt(15.0 / math.pi)  # xy, yz, xz
_C20 = 0.25 * math.sqrt(5.0 / math.pi)  # 3 z^2 - 1
_C22 = 0.25 * math.sqrt(15.0 / math.pi)  # x^2 - y^2
_C30 = 0.25 * math.sqrt(7.0 / math.pi)  # z (5 z^2 - 3)
_C31 = 0.25 * math.sqrt(10.5 / math.pi)  # x (5 z^2 - 1)
_C32 = 0.5 * math.sqrt(105.0 / math.pi)  # xyz; half of it for z (x^2 - y^2)
_C33 = 0.25 * math.sqrt(17.5 / math.pi)  # x (x^2 - 3 y^2)


@kernel
def _basis(degree, x, y, z, out):
    """Write the (degree + 1)^2 basis functions of the unit vector (x, y, z) to `out`."""
    out[0] = _C0
    if degree > 0:
        out[1], out[2], out[3] = -_C1 * y, _C1 * z, -_C1 * x
    if degree > 1:
        xx, yy, zz = x * x, y * y, z * z
        out[4], out[5], out[6] = _C2 * x * y, -_C2 * y * z, _C20 * (3.0 * zz - 1.0)
        out[7], out[8] = -_C2 * x * z, _C22 * (xx - yy)
        if degree > 2:
            out[9], out[10] = -_C33 * y * (3.0 * xx - yy), _C32 * x * y * z
            out[11], out[12] = -_C31 * y * (5.0 * zz - 1.0), _C30 * z * (5.0 * zz - 3.0)
            out[13], out[14] = -_C31 * x * (5.0 * zz - 1.0), 0.5 * _C32 * z * (xx - yy)
            out[15] = -_C33 * x * (xx - 3.0 * yy)


@kernel
def _basis_derivative(degree, x, y, z, v):
    """Gradient of sum_k v[k] basis_k as a polynomial in x, y, z (not yet confined to the sphere)."""
    gx = gy = gz = 0.0
    if degree > 0:
        gx, gy, gz = -_C1 * v[3], -_C1 * v[1], _C1 * v[2]
    if degree > 1:
        gx += _C2 * (y * v[4] - z * v[7]) + 2.0 * _C22 * x * v[8]
        gy += _C2 * (x * v[4] - z * v[5]) - 2.0 * _C22 * y * v[8]
        gz += -_C2 * (y * v[5] + x * v[7]) + 6.0 * _C20 * z * v[6]
        if degree > 2:
            xx, yy, zz = x * x, y * y, z * z
            side = _C31 * (5.0 * zz - 1.0)
            gx += -6.0 * _C33 * x * y * v[9] + _C32 * (y * z * v[10] + x * z * v[14])
            gx += -side * v[13] - 3.0 * _C33 * (xx - yy) * v[15]
            gy += -3.0 * _C33 * (xx - yy) * v[9] + _C32 * (x * z * v[10] - y * z * v[14])
            gy += -side * v[11] + 6.0 * _C33 * x * y * v[15]
            gz += _C32 * (x * y * v[10] + 0.5 * (xx - yy) * v[14]) + 3.0 * _C30 * (5.0 * zz - 1.0) * v[12]
            gz -= 10.0 * _C31 * z * (y * v[11] + x * v[13])
    return gx, gy, gz


@kernel
def _forward(start, stop, degree, coefficients, means, eyes, radii, colors):
    basis = np.empty(16)
    count = (degree + 1) ** 2
    for c in range(radii.shape[0]):
        for n in range(start, stop):
            if radii[c, n] <= 0:
                for k in range(3):
                    colors[c, n, k] = 0.0
                continue
            x, y, z = (
                np.float64(means[n, 0] - eyes[c, 0]),
                np.float64(means[n, 1] - eyes[c, 1]),
                np.float64(means[n, 2] - eyes[c, 2]),
            )
            inv = 1.0 / math.sqrt(x * x + y * y + z * z)
            _basis(degree, x * inv, y * inv, z * inv, basis)
            red = green = blue = 0.5
            for k in range(count):
                red += basis[k] * coefficients[n, k, 0]
                green += basis[k] * coefficients[n, k, 1]
                blue += basis[k] * coefficients[n, k, 2]
            # Written so that NaN stays NaN: compositing then leaves the Gaussian out.
            colors[c, n, 0] = 0.0 if red < 0.0 else red
            colors[c, n, 1] = 0.0 if green < 0.0 else green
            colors[c, n, 2] = 0.0 if blue < 0.0 else blue


@kernel
def _backward(start, stop, degree, coefficients, means, eyes, colors, v_colors, v_coefficients, v_means, v_eyes):
    basis = np.empty(16)
    v_basis = np.empty(16)
    count = (degree + 1) ** 2
    for n in range(start, stop):
        v_coefficients[n] = 0.0
        v_means[n] = 0.0
    for c in range(colors.shape[0]):
        ex = ey = ez = 0.0
        for n in range(start, stop):
            red = np.float64(v_colors[c, n, 0]) if colors[c, n, 0] > 0.0 else 0.0
            green = np.float64(v_colors[c, n, 1]) if colors[c, n, 1] > 0.0 else 0.0
            blue = np.float64(v_colors[c, n, 2]) if colors[c, n, 2] > 0.0 else 0.0
            if red == 0.0 and green == 0.0 and blue == 0.0:
                continue
            x, y, z = (
                np.float64(means[n, 0] - eyes[c, 0]),
                np.float64(means[n, 1] - eyes[c, 1]),
                np.float64(means[n, 2] - eyes[c, 2]),
            )
            inv = 1.0 / math.sqrt(x * x + y * y + z * z)
            x, y, z = x * inv, y * inv, z * inv
            _basis(degree, x, y, z, basis)
            for k in range(count):
                v_coefficients[n, k, 0] += basis[k] * red
                v_coefficients[n, k, 1] += basis[k] * green
                v_coefficients[n, k, 2] += basis[k] * blue
                v_basis[k] = coefficients[n, k, 0] * red + coefficients[n, k, 1] * green + coefficients[n, k, 2] * blue
            gx, gy, gz = _basis_derivative(degree, x, y, z, v_basis)
            along = gx * x + gy * y + gz * z
            gx, gy, gz = (gx - along * x) * inv, (gy - along * y) * inv, (gz - along * z) * inv
            v_means[n, 0] += gx
            v_means[n, 1] += gy
            v_means[n, 2] += gz
            ex -= gx
            ey -= gy
            ez -= gz
        v_eyes[c, 0], v_eyes[c, 1], v_eyes[c, 2] = ex, ey, ez


class _Harmonics(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, coefficients, means, eyes, radii, degree):  # type: ignore[override]
        colors = means.new_empty((*radii.shape, 3))
        arrays = [as_array(t) for t in (coefficients, means, eyes, radii)] + [colors.numpy()]
        in_blocks(lambda start, stop: _forward(start, stop, degree, *arrays), means.shape[0], _BLOCK)
        ctx.save_for_backward(coefficients, means, eyes, colors)
        ctx.degree = degree
        return colors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_colors):  # type: ignore[override]
        coefficients, means, eyes, colors = ctx.saved_tensors
        count, cameras = means.shape[0], eyes.shape[0]
        arrays = [as_array(t) for t in (coefficients, means, eyes, colors, v_colors)]
        v_coefficients = torch.empty(coefficients.shape, dtype=means.dtype)
        v_means = torch.empty(means.shape, dtype=means.dtype)
        shares = np.zeros((-(-count // _BLOCK), cameras, 3))
        out = (v_coefficients.numpy(), v_means.numpy())
        in_blocks(
            lambda start, stop: _backward(start, stop, ctx.degree, *arrays, *out, shares[start // _BLOCK]),
            count,
            _BLOCK,
        )
        return v_coefficients, v_means, torch.from_numpy(shares.sum(axis=0)).to(means.dtype), None, None


def harmonics_to_color(
    coefficients: Float[Tensor, "n k 3"],
    means: Float[Tensor, "n 3"],
    eyes: Float[Tensor, "c 3"],
    radii: Int[Tensor, "c n"],
    degree: int,
) -> Float[Tensor, "c n 3"]:
    """Colours of the Gaussians as seen from each camera centre (`eyes`, world frame); 0 where `radii` is 0.

    Gradients reach the coefficients, and through the viewing direction also means and eyes, as in gsplat.
    Coefficients beyond `degree` are left out.
    """
    return _Harmonics.apply(coefficients, means, eyes, radii, degree)  # type: ignore[no-any-return]
