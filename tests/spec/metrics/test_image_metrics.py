"""Distances between sets of features: closed forms, sums, torchmetrics; and what may be called FID."""

from __future__ import annotations

import importlib.util
import itertools
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from fedsim.builtin import digits
from fedsim.errors import DataError
from fedsim.metrics import kernel
from fedsim.metrics.frechet import Moments, frechet
from fedsim.metrics.kernel import kernel_distance, within, within_strata
from fedsim.tasks._images import features as _images_features
from fedsim.tasks._images.features import Features
from fedsim.training.diffusion import classifier, inception


def gaussian(n, mean, covariance, seed):
    return np.random.default_rng(seed).multivariate_normal(mean, covariance, n)


def exact(mean, covariance, n=1000):
    """Sums whose mean and covariance are given exactly."""
    mean, covariance = np.asarray(mean, float), np.asarray(covariance, float)
    return Moments(float(n), n * mean, (n - 1) * covariance + n * np.outer(mean, mean))


# Frechet ----------------------------------------------------------------------------------------


def test_a_set_is_at_distance_zero_from_itself():
    features = gaussian(300, np.arange(5.0), np.diag([1.0, 4, 9, 0.5, 2]), 0)
    own = Moments.of(features)
    assert abs(frechet(own, own)) < 1e-9
    assert abs(frechet(own, Moments.of(features[::-1]))) < 1e-9


def test_gaussians_that_commute_have_the_closed_form():
    """|m1 - m2|^2 + sum (s1 - s2)^2, with s the standard deviations in a common basis."""
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    one, two = np.array([1.0, 2, 3, 4]), np.array([2.0, 1, 5, 0.5])
    m1, m2 = np.array([0.0, 1, 0, 2]), np.array([1.0, 1, -1, 0])
    found = frechet(exact(m1, turn @ np.diag(one**2) @ turn.T), exact(m2, turn @ np.diag(two**2) @ turn.T))
    assert found == pytest.approx(((m1 - m2) ** 2).sum() + ((one - two) ** 2).sum(), rel=1e-10)


def test_gaussians_that_do_not_commute_agree_with_scipy():
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(1)
    roots = [rng.normal(size=(6, 6)) for _ in range(2)]
    c1, c2 = (r @ r.T for r in roots)
    expected = np.trace(c1 + c2 - 2 * np.real(sqrtm(c1 @ c2)))
    assert frechet(exact(np.zeros(6), c1), exact(np.zeros(6), c2)) == pytest.approx(expected, rel=1e-8)


def test_fewer_images_than_features_still_give_a_number():
    few, many = gaussian(5, np.zeros(8), np.eye(8), 2), gaussian(500, np.zeros(8), np.eye(8), 3)
    assert frechet(Moments.of(few), Moments.of(many)) > 0
    assert np.isnan(frechet(Moments.of(few[:1]), Moments.of(many)))


@settings(max_examples=20, deadline=None)
@given(cut=st.integers(1, 39))
def test_moments_of_two_halves_add_up_to_those_of_the_whole(cut):
    features = gaussian(40, [1.0, -2, 0], np.diag([1.0, 2, 3]), 4)
    a, b, whole = Moments.of(features[:cut]), Moments.of(features[cut:]), Moments.of(features)
    added = Moments(a.n + b.n, a.total + b.total, a.outer + b.outer)
    np.testing.assert_allclose(added.mean, features.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(added.covariance, np.cov(features.T), atol=1e-12)
    assert abs(frechet(added, whole)) < 1e-9


# kernel -----------------------------------------------------------------------------------------


def test_the_kernel_distance_is_its_definition():
    x, y = gaussian(7, np.zeros(3), np.eye(3), 5), gaussian(9, np.ones(3), np.eye(3), 6)

    def k(a, b):
        return (a @ b / 3 + 1) ** 3

    expected = (
        np.mean([k(x[i], x[j]) for i in range(7) for j in range(7) if i != j])
        + np.mean([k(y[i], y[j]) for i in range(9) for j in range(9) if i != j])
        - 2 * np.mean([k(a, b) for a in x for b in y])
    )
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-12)


def test_the_kernel_distance_needs_the_memory_of_a_block_and_the_other_side_s_own_mean_once(monkeypatch):
    """Blocks that do not fit the sets: the same numbers; and with the mean given, nothing of it is computed."""
    x, y = gaussian(11, np.zeros(3), np.eye(3), 5), gaussian(17, np.ones(3), np.eye(3), 6)
    whole, itself = kernel_distance(x, y), within(y)
    monkeypatch.setattr(kernel, "ROWS", 4)
    assert kernel_distance(x, y) == pytest.approx(whole, rel=1e-12)
    assert within(y) == pytest.approx(itself, rel=1e-12)
    assert kernel_distance(x, y, itself) == pytest.approx(whole, rel=1e-12)
    assert kernel_distance(x, y, itself + 1) == pytest.approx(whole + 1, rel=1e-12)
    assert np.isnan(kernel_distance(x[:1], y))
    assert np.isnan(within(x[:1]))


def test_the_kernel_distance_is_unbiased_and_the_frechet_distance_is_not():
    """Sets of 20 from one distribution: the mean of many estimates is 0 within its error, or far from it."""
    rng = np.random.default_rng(7)
    pairs = [(rng.normal(size=(20, 4)), rng.normal(size=(20, 4))) for _ in range(400)]
    kernel = np.array([kernel_distance(*pair) for pair in pairs])
    assert abs(kernel.mean()) < 4 * kernel.std() / 20
    distances = np.array([frechet(Moments.of(a), Moments.of(b)) for a, b in pairs])
    assert distances.mean() > 50 * distances.std() / 20


def test_what_every_part_of_a_mixture_draws_its_share_of_has_the_mean_kernel_of_the_mixture():
    """All draws that two clients can make, each of two of its own two points: their mean is that of the mixture, exactly."""
    own = [np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([[3.0, 1.0], [4.0, 2.0]])]

    def k(a, b):
        return (a @ b / 2 + 1) ** 3

    mixture = np.concatenate(own)
    expected = np.mean([[k(a, b) for a in mixture] for b in mixture])

    draws = [
        [part[list(chosen)] for part, chosen in zip(own, (first, second), strict=True)]
        for first in itertools.product(range(2), repeat=2)
        for second in itertools.product(range(2), repeat=2)
    ]
    corrected = [
        within_strata(np.concatenate(parts), float(np.mean([within(part) for part in parts])))
        for parts in draws
    ]
    pairs_alone = [within(np.concatenate(parts)) for parts in draws]

    assert np.mean(corrected) == pytest.approx(expected, rel=1e-12)
    assert np.mean(pairs_alone) < 0.8 * expected


def test_many_vectors_are_compared_in_subsets_that_have_some_of_every_part():
    parts = [gaussian(8, np.full(3, float(at)), np.eye(3), at) for at in range(3)]
    rows, own = np.concatenate(parts), float(np.mean([within(part) for part in parts]))

    halves = [((11) * within(rows[at::2]) + own) / 12 for at in range(2)]
    assert within_strata(rows, own, most=12) == pytest.approx(np.mean(halves), rel=1e-12)
    assert within_strata(rows, own, most=24) == pytest.approx((23 * within(rows) + own) / 24, rel=1e-12)


class Flat(torch.nn.Module):
    """An extractor for torchmetrics: the pixels themselves."""

    num_features = 16

    def forward(self, images):
        return images.flatten(1).double()


@pytest.mark.skipif(importlib.util.find_spec("torchmetrics") is None, reason="the extra metrics")
def test_both_distances_agree_with_torchmetrics():
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    rng = np.random.default_rng(8)
    real, drawn = rng.integers(0, 256, (60, 1, 4, 4)), rng.integers(40, 200, (50, 1, 4, 4))
    theirs = FrechetInceptionDistance(feature=Flat(), normalize=False, input_img_size=(1, 4, 4)).set_dtype(
        torch.float64
    )
    for images, is_real in ((real, True), (drawn, False)):
        theirs.update(torch.from_numpy(images).to(torch.uint8), real=is_real)
    ours = frechet(*(Moments.of(images.reshape(-1, 16)) for images in (real, drawn)))
    assert ours == pytest.approx(float(theirs.compute()), rel=1e-5)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it keeps all features, and says so
        subsets = KernelInceptionDistance(feature=Flat(), subsets=1, subset_size=50, normalize=False)
    subsets.update(torch.from_numpy(real[:50]).to(torch.uint8), real=True)
    subsets.update(torch.from_numpy(drawn).to(torch.uint8), real=False)
    mean, _ = subsets.compute()
    mine = kernel_distance(drawn.reshape(-1, 16), real[:50].reshape(-1, 16))
    assert mine == pytest.approx(float(mean), rel=1e-4)


# extractors -------------------------------------------------------------------------------------


def test_the_shipped_classifier_knows_the_digits_that_it_was_not_trained_on():
    pixels, labels = digits.images()
    held = digits.is_test(labels)
    what = Features("digits-cnn")
    assert np.mean(_images_features.classes(what, pixels[held]) == labels[held]) > 0.97
    assert _images_features.features(what, pixels[:3]).shape == (3, classifier.FEATURES)


def test_the_shipped_denoiser_has_the_errors_of_its_card(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "scripts"))
    import denoiser_pretraining as pretrain

    from fedsim.training.diffusion import models as denoisers
    from fedsim.training.diffusion import process as diffusion

    folder = digits.model_folder()
    facts = json.loads((folder / "facts.json").read_text())
    model, how = denoisers.weights(str(folder)), denoisers.signature(str(folder))
    process = diffusion.Process.of(denoisers.schedule(str(folder), "auto"))
    pixels, labels = digits.images()
    for name, wanted in (("0 to 4, test", digits.KNOWN), ("5 to 9, test", digits.NEW)):
        images = torch.from_numpy(pixels[np.isin(labels, wanted) & digits.is_test(labels)])
        found = pretrain.grid_loss(model, how, process, images, None)
        assert found == pytest.approx(facts["losses"][name], rel=1e-3)
        assert f"| {name} | {found:.3f}" in (folder / "MODEL_CARD.md").read_text()


def test_the_shipped_features_tell_a_set_s_halves_from_other_digits_and_from_noise():
    pixels, labels = digits.images()
    what = Features("digits-cnn")
    new, known = (
        _images_features.features(what, pixels[np.isin(labels, c)]) for c in (digits.NEW, digits.KNOWN)
    )
    noise = _images_features.features(
        what, np.random.default_rng(0).integers(0, 256, (400, 1, 8, 8), np.uint8)
    )
    halves = frechet(Moments.of(new[::2]), Moments.of(new[1::2]))
    others = frechet(Moments.of(new), Moments.of(known))
    assert halves * 50 < min(others, frechet(Moments.of(new), Moments.of(noise)))


def test_a_classifier_is_stored_with_what_it_takes_to_build_it(tmp_path):
    net = classifier.Classifier(3, 16, 4, width=8).eval()
    classifier.save(net, tmp_path / "c.safetensors")
    again = classifier.load(tmp_path / "c.safetensors")
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again(x)[1], net(x)[1], atol=2e-3, rtol=1e-2)
    with pytest.raises(DataError, match=r"c2.safetensors holds no classifier.*\n  fix: "):
        classifier.load(tmp_path / "c2.safetensors")
    with pytest.raises(DataError, match="sees 3 channels of 16 pixels, the images are 1 of 8"):
        _images_features.check(Features("classifier", classifier=str(tmp_path / "c.safetensors")), 1, 8, 4)
    with pytest.raises(DataError, match="knows 4 classes, the data have 10"):
        _images_features.check(Features("classifier", classifier=str(tmp_path / "c.safetensors")), 3, 16, 10)


def test_a_distance_is_called_after_what_looks_and_a_classifier_beside_it_only_counts(tmp_path):
    """`digits-cnn` with a classifier of one's own has the shipped features, and the own one's classes."""
    pixels = digits.images()[0][:20]
    net = classifier.Classifier(1, 8, 10, width=8).eval()
    with torch.no_grad():
        net.classes.bias[7] += 1000
    classifier.save(net, tmp_path / "sevens.safetensors")
    shipped, both = (
        Features("digits-cnn"),
        Features("digits-cnn", classifier=str(tmp_path / "sevens.safetensors")),
    )
    np.testing.assert_array_equal(*(_images_features.features(what, pixels) for what in (shipped, both)))
    assert _images_features.classes(both, pixels).tolist() == [7] * 20
    assert _images_features.classes(Features("digits-cnn", digits=False), pixels) is None
    alone = Features("classifier", classifier=both.classifier)
    assert (shipped.digest, len(alone.digest)) == (both.digest, 64)
    assert alone.digest != shipped.digest


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Inception with random weights, one file that says it is the original and one that does not."""
    folder = tmp_path_factory.mktemp("inception")
    tensors = {n: t for n, t in inception.Inception().state_dict().items() if t.dim()}
    for name, made_from in (("original", inception.ORIGINAL + "0" * 56), ("other", "0" * 64)):
        save_file(tensors, folder / f"{name}.safetensors", metadata={"source_sha256": made_from})
    return folder


def test_only_the_original_inception_weights_make_a_fid(weights):
    names = {
        which: Features("inception", weights=str(weights / f"{which}.safetensors")).names
        for which in ("original", "other")
    }
    assert names["original"] == ("FID", "KID")
    assert names["other"] == ("FD(inception-v3, other weights)", "KID(inception-v3, other weights)")
    original = str(weights / "original.safetensors")
    assert Features("inception", weights=original, resize=299).names == ("FID", "KID")
    assert Features("inception", weights=original, resize=96).names == (
        "FD(inception@96)",
        "KID(inception@96)",
    )
    assert Features("digits-cnn").names == ("FD(digits-cnn)", "KID(digits-cnn)")
    assert Features("efficientnet-lite0").names == ("FD(efficientnet-lite0@64)", "KID(efficientnet-lite0@64)")


def test_inception_gives_2048_features_of_images_of_any_size(weights):
    what = Features("inception", weights=str(weights / "original.safetensors"), resize=96)
    seen = _images_features.features(what, np.zeros((1, 1, 8, 8), np.uint8))
    assert seen.shape == (1, 2048)
    # 21.8 million parameters: Inception-v3 without its classifier (2,049,000) and auxiliary head
    assert sum(p.numel() for p in inception.load(what.weights).parameters()) == 21_785_568


def test_missing_weights_and_packages_say_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"original Inception weights\n  fix: .*inception_weights.py"):
        _images_features.check(Features("inception"), 1, 8, 10)
    save_file({"a": torch.zeros(1)}, tmp_path / "wrong.safetensors")
    with pytest.raises(DataError, match=r"lacks .* of Inception's tensors"):
        inception.load(str(tmp_path / "wrong.safetensors"))
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(DataError, match=r"two packages\n  fix: pip install 'fedsim-edge\[metrics\]'"):
        _images_features.check(Features("efficientnet-lite0"), 3, 32, 10)


@pytest.mark.skipif(importlib.util.find_spec("efficientnet_lite_pytorch") is None, reason="the extra metrics")
def test_efficientnet_sees_real_pictures_and_says_nothing(capsys):
    seen = _images_features.features(Features("efficientnet-lite0"), np.zeros((2, 3, 32, 32), np.uint8))
    assert seen.shape == (2, 1280)
    assert capsys.readouterr().out == ""


def test_features_of_many_real_images_are_kept_between_runs_and_a_spoilt_cache_is_made_anew(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(_images_features, "KEPT_FROM", 20)
    what = _images_features.Features("digits-cnn")
    images, _ = digits.images()
    some = images[:30]
    plain = _images_features.features(what, some)
    taken, itself = _images_features.reference(what, some)
    (kept,) = (tmp_path / "fedsim").iterdir()
    assert (taken == plain).all()
    assert itself == within(plain)
    monkeypatch.setattr(_images_features, "features", None)  # cannot be taken any more
    again, as_before = _images_features.reference(what, some)
    assert (again == plain).all()
    assert as_before == itself
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(_images_features, "KEPT_FROM", 20)
    for spoilt in (b"", b"nothing of ours", kept.read_bytes()[:-100]):
        kept.write_bytes(spoilt)
        assert (_images_features.reference(what, some)[0] == plain).all()
    assert len(_images_features.reference(what, images[:25])[0]) == 25  # other images, another file
    assert len(list((tmp_path / "fedsim").iterdir())) == 2
    assert len(_images_features.reference(what, images[:10])[0]) == 10  # few: not kept
    assert len(list((tmp_path / "fedsim").iterdir())) == 2
