"""Convolutional conditioners: attention and its derivatives."""

import torch
import torch.nn.functional as F

from snflow import flows
from snflow.nets.convnet import AttentionConvNet


def test_attention_is_scaled_dot_product_attention():
    block = AttentionConvNet(2, 3, (4, 4), width=8, blocks=1).blocks[0]
    h = torch.randn(5, 8, 4, 4)
    heads = block.query_key_value(h).flatten(2).unflatten(1, (3, 4, -1)).transpose(-1, -2)
    expected = F.scaled_dot_product_attention(*heads.unbind(1)).transpose(-1, -2).reshape(h.shape)
    torch.testing.assert_close(block._attended(h), expected)


def test_the_density_of_flowpp_has_a_second_derivative():
    flow = flows.flowpp((1, 4, 4), width=4, depth=1, components=2, first_layers=2, channel_layers=1, last_layers=1)
    flow.log_prob(torch.randn(64, 1, 4, 4))  # initializes act-norms
    flow.eval()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x, direction = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)

    def score(at):
        at = at.detach().requires_grad_()
        return torch.autograd.grad(flow.log_prob(at).sum(), at, create_graph=True)[0], at

    gradient, at = score(x)
    (second,) = torch.autograd.grad((gradient * direction).sum(), at)
    step = 1e-6
    numeric = (score(x + step * direction)[0] - score(x - step * direction)[0]) / (2 * step)
    torch.testing.assert_close(second, numeric, rtol=1e-5, atol=1e-5)
