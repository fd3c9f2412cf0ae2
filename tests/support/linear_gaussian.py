"""The linear-Gaussian model as a trained one would be, whose bounds and gradients are known in closed form."""

from __future__ import annotations

from typing import Any

import torch
from jointgen_data.linear_gaussian import LinearGaussian
from jointgen_vae.objective import VAE

from support.models import SmallModel, small_model

DOUBLE = torch.float64


def exact_model(source: dict[str, Any], objective: Any = None, **changes: Any) -> tuple[SmallModel, LinearGaussian]:
    """A VAE of linear networks whose decoder is the source itself, and that source.

    Its encoder is the best Gaussian there is: the posterior's mean, with the precisions on the diagonal of its
    precision matrix.
    """
    truth = LinearGaussian(**source, rows=20_000)
    size = len(source["weights"][0])
    linear = {"type": "mlp", "hidden": []}
    model = small_model(
        objective or VAE().objective(),
        data={"type": "linear_gaussian", **source, "rows": 20_000},
        prior={"type": "normal", "size": size},
        encoder={"network": linear, "family": {"type": "gaussian"}},
        decoder={
            "network": linear,
            "family": {"type": "gaussian", "scale": "fixed", "init_scale": source["scale"]},
        },
        **changes,
    ).double()
    weights, bias = torch.tensor(source["weights"], dtype=DOUBLE), torch.tensor(source["bias"], dtype=DOUBLE)
    encoder, decoder = (model.parts.modules[name].trunk.layers[0] for name in ("encoder", "decoder"))
    precision = torch.eye(size, dtype=DOUBLE) + weights.T @ weights / source["scale"] ** 2
    slope = torch.linalg.solve(precision, weights.T) / source["scale"] ** 2  # (Z, D)
    with torch.no_grad():
        decoder.weight.copy_(weights)
        decoder.bias.copy_(bias)
        encoder.weight.zero_()
        encoder.weight[:size] = slope
        encoder.bias[:size] = -slope @ bias
        encoder.bias[size:] = -0.5 * precision.diagonal().log()
    return model, truth
