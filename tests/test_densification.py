"""Growing and pruning: counts on constructed cases, green-key rules, the limit, optimizers that keep up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from degstalk_ns.avatar.gaussians import SH_C0, EmbeddedGaussians, GaussiansConfig
from degstalk_ns.errors import UserError
from degstalk_ns.training.densification import DensificationConfig, Densifier, GrowthReport

N = 12
GREEN = torch.tensor([0.02, 0.97, 0.0])


@dataclass
class Now:
    """A schedule that always grows."""

    progress: float = 0.0
    by_size: bool = False
    due: bool = True

    def grows(self, step: int) -> bool:
        return self.due

    def growth_progress(self, step: int) -> float:
        return self.progress

    def prunes_by_size(self, step: int) -> bool:
        return self.by_size


def region() -> EmbeddedGaussians:
    """Small, opaque, black Gaussians that nothing should happen to."""
    gaussians = EmbeddedGaussians(GaussiansConfig(num_points=N), seed=0)
    with torch.no_grad():
        gaussians.params["scales"].fill_(-7.0)  # 0.0009
        gaussians.params["opacities"].fill_(2.0)  # 0.88
        gaussians.params["embeddings"].copy_(torch.arange(N)[:, None].expand(-1, 32))  # names each of them
    return gaussians


def adams(gaussians: EmbeddedGaussians, **options: Any) -> dict[str, torch.optim.Optimizer]:
    return {name: torch.optim.Adam([p], lr=1e-3, **options) for name, p in gaussians.params.items()}


def train_step(gaussians: EmbeddedGaussians, optimizers: dict[str, torch.optim.Optimizer]) -> None:
    for optimizer in optimizers.values():
        optimizer.zero_grad()
    sum(p.square().sum() for p in gaussians.params.values()).backward()  # type: ignore[union-attr]
    for optimizer in optimizers.values():
        optimizer.step()


def seen(gradients: torch.Tensor, radius: int = 1, size: int = 2) -> dict[str, Any]:
    """Meta of one view whose normalised gradient norms are ``gradients`` [N]; the screen is ``size`` pixels square."""
    means2d = torch.zeros(1, len(gradients), 2, requires_grad=True)
    means2d.grad = torch.stack([gradients / (size / 2), torch.zeros_like(gradients)], dim=-1)[None]
    radii = torch.full((1, len(gradients)), radius, dtype=torch.int32)
    return {"means2d": means2d, "radii": radii, "width": size, "height": size, "n_cameras": 1}


def config(**changes: Any) -> DensificationConfig:
    return DensificationConfig(**{"min_gaussians": 1, **changes})


def names(gaussians: EmbeddedGaussians) -> list[int]:
    return [round(value) for value in gaussians.embeddings[:, 0].tolist()]


def green(gaussians: EmbeddedGaussians, rows: list[int]) -> None:
    with torch.no_grad():
        gaussians.params["sh0"][rows, 0] = (GREEN - 0.5) / SH_C0


def test_nothing_happens_where_nothing_is_wrong_or_due() -> None:
    gaussians, densifier = region(), Densifier(config())
    optimizers = adams(gaussians)
    before = dict(gaussians.params.items())
    densifier.observe(seen(torch.full((N,), 4e-4)))
    report = densifier.step(0, gaussians.params, optimizers, Now())
    assert report == GrowthReport(0, 0, 0, 0, N) and not report.changed
    densifier.observe(seen(torch.full((N,), 1.0)))
    assert densifier.step(0, gaussians.params, optimizers, Now(due=False)) == GrowthReport(0, 0, 0, 0, N)
    assert all(gaussians.params[name] is p for name, p in before.items())
    assert densifier.state["grad2d"].sum() > 0, "gradients are kept until it is due"


def test_observed_gradients_are_normalised_and_averaged_over_views_that_saw_them() -> None:
    densifier = Densifier(config())
    gradient = torch.zeros(2, 3, 2)
    gradient[0, 0] = torch.tensor([0.3, 0.0])
    gradient[0, 1] = torch.tensor([0.0, 0.3])
    gradient[1, 1] = torch.tensor([0.0, 0.1])
    gradient[:, 2] = torch.nan
    means2d = torch.zeros(2, 3, 2, requires_grad=True)
    means2d.grad = gradient
    radii = torch.tensor([[5, 6, 2], [0, 9, 2]], dtype=torch.int32)
    meta = {"means2d": means2d, "radii": radii, "width": 200, "height": 100, "n_cameras": 2}
    densifier.observe(meta)
    assert torch.allclose(densifier.state["grad2d"], torch.tensor([0.3 * 100 * 2, 0.4 * 50 * 2, 0.0]))
    assert densifier.state["count"].tolist() == [1, 2, 0]
    assert set(densifier.state) == {"grad2d", "count"}


def test_observing_without_a_retained_gradient_is_refused() -> None:
    meta = {**seen(torch.zeros(N)), "means2d": torch.zeros(1, N, 2)}
    with pytest.raises(ValueError, match="retain_grad"):
        Densifier(config()).observe(meta)


def test_high_gradients_split_large_and_duplicate_small() -> None:
    gaussians, densifier = region(), Densifier(config(), extent=2.0)
    with torch.no_grad():
        gaussians.params["scales"][3, 1] = torch.tensor(0.0101).log()  # above 0.005 x 2
        gaussians.params["scales"][4, 1] = torch.tensor(0.0099).log()
        gaussians.params["scales"][5, 1] = torch.tensor(0.0101).log()  # large, but its gradient is low
    means, scales = gaussians.means.detach().clone(), gaussians.params["scales"].detach().clone()
    gradients = torch.zeros(N)
    gradients[[3, 4]] = 6e-4
    densifier.observe(seen(gradients))
    report = densifier.step(0, gaussians.params, adams(gaussians), Now())
    assert report == GrowthReport(n_split=1, n_duplicated=1, n_pruned=0, n_shrunk=0, total=N + 2)
    found = names(gaussians)
    assert sorted(found) == sorted([*range(N), 3, 4])
    copies = [i for i, name in enumerate(found) if name == 4]
    assert torch.equal(gaussians.means[copies], means[[4, 4]])
    parts = [i for i, name in enumerate(found) if name == 3]
    assert not torch.equal(gaussians.means[parts[0]], gaussians.means[parts[1]])
    assert torch.allclose(gaussians.params["scales"][parts].exp(), scales[[3, 3]].exp() / 1.6)
    assert (densifier.state["grad2d"] == 0).all() and len(densifier.state["grad2d"]) == N + 2


def test_faint_gaussians_go_and_the_threshold_rises() -> None:
    for progress, left in ((0.0, 3), (0.5, 2), (1.0, 1)):
        gaussians, densifier = region(), Densifier(config())
        with torch.no_grad():
            gaussians.params["opacities"].fill_(-9.0)
            gaussians.params["opacities"][:3] = torch.tensor([0.06, 0.18, 0.31]).logit()
        report = densifier.step(0, gaussians.params, adams(gaussians), Now(progress))
        assert (report.n_pruned, report.total) == (N - left, left)
        assert names(gaussians) == [0, 1, 2][3 - left :]


def test_size_prunes_only_when_the_schedule_says_so() -> None:
    for by_size, gone in ((False, set()), (True, {1})):
        gaussians, densifier = region(), Densifier(config(), extent=1.0)
        with torch.no_grad():
            gaussians.params["scales"][1, 2] = torch.tensor(0.11).log()
            gaussians.params["scales"][3, 2] = torch.tensor(0.11).log()  # about to be split instead
            gaussians.params["scales"][2, 2] = torch.tensor(0.09).log()
        gradients = torch.zeros(N)
        gradients[3] = 1.0
        densifier.observe(seen(gradients))
        report = densifier.step(0, gaussians.params, adams(gaussians), Now(by_size=by_size))
        assert set(range(N)) - set(names(gaussians)) == gone
        assert report.n_split == 1


def test_how_large_a_gaussian_is_on_screen_does_not_matter() -> None:
    gaussians, densifier = region(), Densifier(config())
    densifier.observe(seen(torch.zeros(N), radius=500, size=512))
    assert densifier.step(0, gaussians.params, adams(gaussians), Now(by_size=True)).n_pruned == 0


def test_green_key_prunes_the_face() -> None:
    gaussians, densifier = region(), Densifier(config())
    green(gaussians, [2, 5])
    with torch.no_grad():
        gaussians.params["sh0"][6, 0] = (torch.tensor([0.2, 0.9, 0.0]) - 0.5) / SH_C0  # greenish, not the key
    report = densifier.step(0, gaussians.params, adams(gaussians), Now())
    assert (report.n_pruned, report.n_shrunk) == (2, 0)
    assert set(range(N)) - set(names(gaussians)) == {2, 5}


def test_green_key_shrinks_the_mouth() -> None:
    gaussians, densifier = region(), Densifier(config(green_key="shrink", gradient_threshold=2e-4))
    optimizers = adams(gaussians)
    train_step(gaussians, optimizers)
    green(gaussians, [2, 5, 7])
    with torch.no_grad():
        gaussians.params["opacities"][7] = torch.tensor(0.06).logit()
    scales = gaussians.params["scales"].detach().exp().clone()
    gradients = torch.zeros(N)
    gradients[[2, 3]] = 3e-4  # halved, the green one stays below the threshold
    gradients[5] = 5e-4
    densifier.observe(seen(gradients))
    moments = optimizers["scales"].state[gaussians.params["scales"]]["exp_avg"]
    assert (moments[2] != 0).all()
    report = densifier.step(0, gaussians.params, optimizers, Now())
    assert report == GrowthReport(n_split=0, n_duplicated=2, n_pruned=0, n_shrunk=3, total=N + 2)
    assert names(gaussians)[N:] == [3, 5]
    p = gaussians.params
    assert torch.allclose(p["scales"][[2, 5, 7]].exp(), scales[[2, 5, 7]] / 10)
    assert torch.allclose(p["scales"][[0, 1, 3]].exp(), scales[[0, 1, 3]])
    assert torch.allclose(p["opacities"][[2, 5]].sigmoid(), torch.tensor(0.1))
    assert torch.allclose(p["opacities"][7].sigmoid(), torch.tensor(0.06)), "shrinking makes none more opaque"
    moments = optimizers["scales"].state[p["scales"]]["exp_avg"]
    assert (moments[2] == 0).all() and (moments[3] != 0).all()


def test_shrinking_for_ever_stays_finite() -> None:
    gaussians, densifier = region(), Densifier(config(green_key="shrink"))
    green(gaussians, [0])
    for _ in range(50):
        densifier.step(0, gaussians.params, adams(gaussians), Now())
    assert torch.allclose(gaussians.params["scales"][0].exp(), torch.tensor(1e-6), rtol=1e-3)


def test_colours_can_be_given_or_ignored() -> None:
    colours = torch.zeros(N, 3)
    colours[:2] = GREEN
    for given, changes, pruned in (
        (colours, {}, 2),
        (lambda: colours, {}, 2),
        (colours, {"green_key": "ignore"}, 0),
        (colours, {"key_tolerance": 0.01}, 0),
    ):
        gaussians = region()
        report = Densifier(config(**changes)).step(0, gaussians.params, adams(gaussians), Now(), given)
        assert report.n_pruned == pruned


def test_the_limit_lets_only_the_largest_gradients_grow() -> None:
    gaussians, densifier = region(), Densifier(config(max_gaussians=N + 1))
    with torch.no_grad():
        gaussians.params["opacities"][0] = -9.0  # goes, and makes room for one more
    densifier.observe(seen(torch.arange(N).float()))
    report = densifier.step(0, gaussians.params, adams(gaussians), Now())
    assert report == GrowthReport(n_split=0, n_duplicated=2, n_pruned=1, n_shrunk=0, total=N + 1)
    assert sorted(names(gaussians)[N - 1 :]) == [N - 2, N - 1]
    densifier.observe(seen(torch.full((N + 1,), 1.0)))
    assert densifier.step(0, gaussians.params, adams(gaussians), Now()).total == N + 1
    with pytest.raises(UserError, match="max_gaussians"):
        Densifier(DensificationConfig(max_gaussians=10))


def test_the_most_opaque_survive_when_all_should_go() -> None:
    gaussians, densifier = region(), Densifier(config(min_gaussians=4))
    with torch.no_grad():
        gaussians.params["opacities"].copy_(torch.linspace(-9, -5, N))
    report = densifier.step(0, gaussians.params, adams(gaussians), Now())
    assert report.total == 4 and names(gaussians) == list(range(N - 4, N))
    few = region()
    green(few, list(range(N)))
    assert Densifier(DensificationConfig()).step(0, few.params, adams(few), Now()).total == N


@pytest.mark.parametrize("options", [{}, {"fused": True}, {"foreach": True}, {"amsgrad": True}])
def test_parameters_optimizers_and_state_stay_aligned(options: dict[str, Any]) -> None:
    gaussians, densifier = region(), Densifier(config())
    optimizers = adams(gaussians, **options)
    train_step(gaussians, optimizers)
    moments = optimizers["embeddings"].state[gaussians.params["embeddings"]]["exp_avg"].clone()
    with torch.no_grad():
        gaussians.params["scales"][3] = torch.tensor(0.02).log()
        gaussians.params["opacities"][0] = -9.0
    gradients = torch.zeros(N)
    gradients[[3, 4]] = 1.0
    densifier.observe(seen(gradients))
    report = densifier.step(0, gaussians.params, optimizers, Now())
    assert report.changed and report.total == N - 1 + 2
    for name, parameter in gaussians.params.items():
        assert optimizers[name].param_groups[0]["params"][0] is parameter
        state = optimizers[name].state[parameter]
        assert len(optimizers[name].state) == 1
        assert all(value.shape == parameter.shape for key, value in state.items() if key != "step")
        assert float(state["step"]) == 1
        assert dict(gaussians.named_parameters())[f"params.{name}"] is parameter
    after = optimizers["embeddings"].state[gaussians.params["embeddings"]]["exp_avg"]
    kept = 7  # 1 2 4 5 ... come first; rows move, their moments with them
    row = names(gaussians).index(kept)
    assert torch.equal(after[row], moments[kept])
    assert (after[-1] == 0).all(), "new Gaussians start without moments"
    before = gaussians.means.detach().clone()
    train_step(gaussians, optimizers)
    assert not torch.equal(before, gaussians.means) and gaussians.means.isfinite().all()


def test_frozen_parameters_stay_frozen_and_unused_optimizers_are_no_obstacle() -> None:
    gaussians, densifier = region(), Densifier(config())
    gaussians.params["embeddings"].requires_grad_(False)
    densifier.observe(seen(torch.ones(N)))
    assert densifier.step(0, gaussians.params, adams(gaussians), Now()).total == 2 * N
    assert not gaussians.params["embeddings"].requires_grad
    assert gaussians.params["means"].requires_grad


def test_mismatched_optimizers_are_refused() -> None:
    gaussians = region()
    optimizers = adams(gaussians)
    del optimizers["shN"]
    with pytest.raises(ValueError, match="one optimizer per parameter"):
        Densifier(config()).step(0, gaussians.params, optimizers, Now())


def test_another_number_of_gaussians_starts_the_statistics_anew() -> None:
    gaussians, densifier = region(), Densifier(config())
    densifier.observe(seen(torch.ones(5)))
    assert densifier.step(0, gaussians.params, adams(gaussians), Now()).total == N
    densifier.observe(seen(torch.ones(5)))
    densifier.observe(seen(torch.zeros(N)))
    assert densifier.state["grad2d"].tolist() == [0.0] * N
