"""Finite inputs of any size, up to the largest number of a dtype, never give NaN."""

import pytest
import torch

from snflow.testing import CATALOGUE

FAR = ["Elementwise", "Coupling", "Autoregressive", "BlockAutoregressive"]
"""Layers that hold up to the largest number; in others, which mix elements, a sum of two such numbers overflows."""
SLOW = ["ContinuousFlow", "SelfNormalizing"]
NAMES = [name for name in CATALOGUE if name.split(" (")[0] not in SLOW]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_finite_inputs_never_give_nan(name, dtype):
    case = CATALOGUE[name]
    layer, context = case.layer().to(dtype), case.context(6)
    info = torch.finfo(dtype)
    most = info.max if name.split(" (")[0] in FAR else 1e30
    sizes = torch.tensor([0.0, info.tiny, 1e3, 1e6, 1e30, most], dtype=dtype).reshape(-1, *[1] * len(case.event_shape))
    direction = torch.randn(6, *case.event_shape).to(dtype)
    for x in (sizes * direction.sign(), sizes * direction.clamp(-1, 1)):
        with torch.no_grad():
            z, log_det = layer(x, None if context is None else context.to(dtype))
        assert not z.isnan().any()
        assert not log_det.isnan().any()
        assert (log_det < torch.inf).all()
