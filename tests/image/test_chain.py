"""Chains: order, names, networks and functions as stages, recomputation, adjoints, tiles."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import diffsim as ds
from diffsim import image

PICTURE = jr.uniform(jr.key(0), (3, 48, 56))
MOSAIC = image.mosaic(PICTURE)


@pytest.fixture(scope="module")
def chain():
    return image.Chain(
        balance=image.WhiteBalance(black=0.0, red=1.1, blue=0.9),
        demosaic=image.DemosaicNetwork((4,), key=jr.key(1)),
        guided=image.GuidedFilter(radius=2),
        gamma=image.Gamma(),
        sharpen=image.UnsharpMask(amount=0.3, radius=3),
    )


def test_stages_run_in_their_order_and_can_be_looked_at(chain):
    pictures = eqx.filter_jit(lambda c, m: c.pictures(m))(chain, MOSAIC)
    assert list(pictures) == ["balance", "demosaic", "guided", "gamma", "sharpen"]
    np.testing.assert_allclose(pictures["sharpen"], eqx.filter_jit(chain)(MOSAIC), atol=1e-12)
    turned = image.Chain(b=lambda x: x + 1, a=lambda x: 2 * x)
    # As a tree and back: the order is that of the names given, not the alphabet's.
    assert jax.tree.map(lambda x: x, turned)(jnp.array(1.0)) == 4.0


def test_functions_and_networks_fit_in():
    mixed = image.Chain(
        brighter=image.FunctionStage(lambda p, x: p["gain"] * x, {"gain": jnp.array(2.0)}),
        network=eqx.nn.Conv2d(3, 3, 3, padding=1, key=jr.key(2)),
        bounded=jnp.tanh,
    )
    paths = set(ds.parameters(mixed))
    assert paths == {"stages.brighter.parameters.gain", "stages.network.weight", "stages.network.bias"}
    # A chain is a tree of arrays, even one with a function that is compiled already.
    np.testing.assert_allclose(jax.jit(lambda c: c(PICTURE))(mixed), mixed(PICTURE), rtol=1e-12)
    gradient = eqx.filter_grad(lambda c: jnp.sum(c(PICTURE)))(mixed)
    assert all(np.any(x.value != 0) for x in ds.parameters(gradient).values())


@pytest.mark.slow
def test_recomputation_changes_no_gradient(chain):
    plain = image.Chain(remat=False, **chain.stages)
    loss = lambda c: jnp.mean(c(MOSAIC) ** 2)
    for a, b in zip(*(jax.tree.leaves(eqx.filter_jit(eqx.filter_grad(loss))(c)) for c in (chain, plain)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_adjoints_are_the_slopes_of_the_loss_at_every_stage(chain):
    loss = lambda picture: jnp.mean((picture - 0.5) ** 2)
    adjoints = eqx.filter_jit(image.adjoints)(chain, MOSAIC, loss)
    assert list(adjoints) == list(chain.stages)
    picture = chain(MOSAIC)
    np.testing.assert_allclose(adjoints["sharpen"], 2 * (picture - 0.5) / picture.size, rtol=1e-10)
    after = lambda x: loss(chain.stages["sharpen"](chain.stages["gamma"](x)))
    np.testing.assert_allclose(
        adjoints["guided"], jax.grad(after)(chain.pictures(MOSAIC)["guided"]), rtol=1e-9, atol=1e-15
    )


def test_a_chain_trains_through_all_stages(chain):
    target = image.Chain(**chain.stages).replace(balance=image.WhiteBalance(black=0.02, red=1.3, blue=0.8))(MOSAIC)
    loss = lambda c, _: jnp.mean((c(MOSAIC) - target) ** 2)
    train = ds.trainable(chain, "stages.balance")
    trained, history = ds.fit(loss, chain, optax.adam(0.05), jnp.zeros(60), filter_spec=train, progress=False)
    assert history.loss[-1] < 0.02 * history.loss[0]
    assert float(trained.stages["balance"].red) == pytest.approx(1.3, abs=0.1)


def test_unknown_stages_and_empty_chains_are_named(chain):
    with pytest.raises(ds.InputError, match="no stage 'tone'"):
        chain.replace(tone=image.ToneCurve())
    with pytest.raises(ds.InputError, match="no stage 'tone'"):
        chain.without("tone")
    with pytest.raises(ds.InputError, match="no stage 'tone'"):
        chain.insert("tone", other=image.Gamma())
    with pytest.raises(ds.InputError, match="has a stage 'gamma' already"):
        chain.append(gamma=image.Gamma())
    with pytest.raises(ds.InputError, match="at least one"):
        image.Chain()
    with pytest.raises(ds.InputError, match="at least one"):
        chain.without(*chain.stages)


def test_stages_are_inserted_appended_and_left_out(chain):
    names = list(chain.stages)
    longer = chain.insert("gamma", exposure=lambda x: 2 * x).append(last=image.Saturation())
    place = names.index("gamma")
    assert list(longer.stages) == [*names[:place], "exposure", *names[place:], "last"]
    np.testing.assert_array_equal(longer.without("exposure", "last")(MOSAIC), chain(MOSAIC))
    np.testing.assert_allclose(longer.pictures(MOSAIC)["exposure"], 2 * chain.pictures(MOSAIC)[names[place - 1]])


def test_tiles_equal_the_full_picture(chain):
    picture = chain(MOSAIC)
    tiled = image.in_tiles(chain, MOSAIC, size=20, halo=16)
    np.testing.assert_allclose(tiled, picture, atol=1e-12)


def test_odd_tiles_are_named(chain):
    with pytest.raises(ds.InputError, match="halo=7"):
        image.in_tiles(chain, MOSAIC, size=20, halo=7)
