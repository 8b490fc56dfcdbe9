"""The bias-free network of the fields, against products worked out by hand."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from degstalk_ns.avatar.fields.layers import MLP


def _two_layers() -> MLP:
    """x, y -> relu of (x, -y, x + y) -> their sum weighted by 1, 2, -3."""
    network = MLP(2, 3, 1)
    with torch.no_grad():
        network.first_weight.copy_(torch.tensor([[1.0, 0.0], [0.0, -1.0], [1.0, 1.0]]))
        network.layers[1].weight.copy_(torch.tensor([[1.0, 2.0, -3.0]]))
    return network


def test_relu_lies_between_the_layers_and_not_after_the_last() -> None:
    x = torch.tensor([[2.0, 1.0], [-1.0, -2.0], [0.0, 0.0]])
    assert _two_layers()(x).tolist() == [[-7.0], [4.0], [0.0]]


def test_one_layer_is_a_matrix() -> None:
    network = MLP(3, 2)
    x = torch.randn(4, 3)
    torch.testing.assert_close(network(x), x @ network.first_weight.T)


def test_nothing_in_gives_nothing_out_whatever_the_weights() -> None:
    network = MLP(5, 8, 8, 3)
    assert sum(parameter.numel() for parameter in network.parameters()) == 5 * 8 + 8 * 8 + 8 * 3
    assert torch.equal(network(torch.zeros(2, 5)), torch.zeros(2, 3))


def test_a_product_known_in_parts_can_be_continued() -> None:
    """What the fields do: the columns of the first layer are applied to inputs of their own, and summed."""
    network = MLP(5, 8, 3)
    a, b = torch.randn(7, 2), torch.randn(1, 3)
    first = F.linear(a, network.first_weight[:, :2]) + F.linear(b, network.first_weight[:, 2:])
    together = network(torch.cat([a, b.expand(7, 3)], dim=1))
    torch.testing.assert_close(network.after_first(first), together)
