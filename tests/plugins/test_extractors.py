"""Whose features draws are scored on: what suits a variable, what is absent and why, what is made once and kept."""

from __future__ import annotations

import hashlib
import itertools
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import attrs
import numpy as np
import pytest
import torch
from jointgen_data.arrays import Arrays
from jointgen_data.digits import Digits
from jointgen_data.image_folder import ImageFolder
from jointgen_metrics import classifier_network, inception
from jointgen_metrics.classifier import Classifier
from jointgen_metrics.frechet import FID
from jointgen_metrics.inception import Inception
from jointgen_metrics.inception_score import InceptionScore
from jointgen_metrics.kernel import KID
from jointgen_metrics.manifolds import PRDC
from jointgen_metrics.probes import LinearProbe
from jointgen_metrics.values import Values
from PIL import Image
from torch import Tensor
from torch_fidelity import feature_extractor_inceptionv3

from jointgen.contracts.figures import Estimate
from jointgen.contracts.metrics import FeatureBatch
from jointgen.contracts.noise import Noise
from jointgen.contracts.observation import observe, pixels
from jointgen.contracts.space import Space
from jointgen.data.split import open_split
from jointgen.evaluation.evaluate import evaluate
from jointgen.inference.model import Model
from jointgen.testing.evaluation import model_of, tiny


@pytest.fixture(autouse=True)
def nothing_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, no Inception weights, and classifiers that hardly learn."""
    monkeypatch.setattr(classifier_network, "MAX_PASSES", 2)
    monkeypatch.setenv("JOINTGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def scored(metrics: Any, model: Model | None = None, **tables: Any) -> dict[str, Estimate]:
    model = model or model_of(tiny(tables=tables))
    return evaluate(model, open_split(model.compiled.binding, "test"), metrics, batch=128)


def images(folder: Path, channels: int) -> dict[str, Any]:
    """A data table of 40 images without labels, 8 pixels a side."""
    levels = np.random.RandomState(0).randint(0, 256, (40, 8, 8, channels), dtype=np.uint8)
    np.save(folder / "images.npy", levels)
    return {"type": "arrays", "path": str(folder / "images.npy")}


# --- pixels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bins", [2, 17, 256])
@pytest.mark.parametrize("reading", ["mean", "sample"])
def test_pixels_are_the_levels_that_were_observed(bins: int, reading: str) -> None:
    space = Space((1, 1, bins), "real", -1.0, 1.0, bins)
    draw = observe(space, torch.arange(bins).view(1, 1, 1, bins), Noise(0).named("u", 1))
    wanted = [round(level * 255 / (bins - 1)) for level in range(bins)]
    assert pixels(draw.read(reading), space).flatten().tolist() == wanted


def test_pixels_of_bits_are_their_probabilities() -> None:
    space = Space((1, 1, 3), "binary", 0.0, 1.0, 256)
    found = pixels(torch.tensor([0.0, 100 / 255, 1.0]).view(1, 1, 1, 3), space)
    assert (found.flatten().tolist(), found.dtype) == ([0, 100, 255], torch.uint8)


def test_pixels_outside_the_range_are_at_its_ends() -> None:
    values = torch.tensor([-torch.inf, -3.0, 3.0, torch.inf, torch.nan]).view(1, 1, 1, 5)
    assert pixels(values, Space((1, 1, 5), "real", -1.0, 1.0)).flatten().tolist() == [0, 0, 255, 255, 0]


# --- which extractor -------------------------------------------------------------------------------------------------


def test_grey_images_with_labels_are_scored_by_a_classifier() -> None:
    found = scored([FID(samples=64)])
    assert list(found) == ["fid/classifier"] and found["fid/classifier"].value is not None


def test_labels_of_one_class_tell_nothing_apart(tmp_path: Path) -> None:
    data = {**images(tmp_path, 1), "variables": {"x": "x", "y": "y"}, "classes": 1, "path": str(tmp_path / "one.npz")}
    np.savez(data["path"], x=np.load(tmp_path / "images.npy"), y=np.zeros(40, dtype=np.int64))
    found = scored([FID(samples=64), LinearProbe()], data=data)
    assert found["fid/classifier"].note == "a classifier needs more than one class"
    assert (found["probe_linear"].value, found["probe_linear"].note) == (None, "all rows are of one class")
    assert found["fid/values"].value is not None


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_draws_that_are_not_finite_have_no_scores(broken: float) -> None:
    """Though a pixel of 8 bits has a level for each of these."""
    model = model_of(tiny())
    with torch.no_grad():
        for parameter in model.parts.modules["decoder"].parameters():
            parameter.fill_(broken)
    found = scored([FID(samples=16), KID(samples=16), PRDC(samples=16), InceptionScore(samples=16)], model)
    assert {(one.value, one.note) for one in found.values()} == {(None, "the model gives NaN")}


def test_colour_without_weights_and_labels_is_scored_by_its_values_and_says_why(tmp_path: Path) -> None:
    found = scored([FID(samples=64), InceptionScore(samples=64)], data=images(tmp_path, 3))
    assert {name: one.value is not None for name, one in found.items()} == {
        "fid/inception-2015": False,
        "fid/classifier": False,
        "fid/values": True,
        "is/inception-2015": False,
        "is/classifier": False,
        "is/values": False,
    }
    weights = tmp_path / "torch" / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    assert str(weights) in found["fid/inception-2015"].note
    assert found["fid/classifier"].note.startswith("the data has no labels")
    assert found["is/inception-2015"].note == "as fid/inception-2015"  # once is enough
    assert found["is/values"].note == "the extractor values has no classes"


def test_points_are_scored_by_their_values_and_refuse_networks_of_images() -> None:
    ring = {"data": {"type": "ring"}}
    found = scored([FID(samples=500)], **ring)
    assert list(found) == ["fid/values"] and found["fid/values"].protocol.startswith("500 draws (mean) against ")
    absent = scored([KID(samples=50, extractor=Classifier())], **ring)["kid/classifier"]
    assert absent.value is None and "no images of a known range" in absent.note


def test_what_a_figure_says_of_itself() -> None:
    found = scored([FID(samples=100, extractor=Values()), InceptionScore(samples=100), PRDC(samples=100, k=3)])
    fid = found["fid/values"]
    assert (fid.split, fid.n, fid.unit) == ("draws", 100, "squared distance")
    assert fid.protocol.startswith("100 draws (mean) against 1500 of train@")
    assert "; values of 1x8x8 real in [0, 1], 17 levels; [" in fid.protocol
    assert found["is/classifier"].protocol.startswith("100 draws (mean); classifier@")
    assert "% on test); 10 splits; [" in found["is/classifier"].protocol
    assert "against 100 of train@" in found["precision/classifier"].protocol
    assert "; k = 3; [" in found["coverage/classifier"].protocol


def test_protocols_differ_where_scores_do_not_compare() -> None:
    how = [
        FID(samples=100, extractor=Values()),
        FID(samples=101, extractor=Values()),
        FID(samples=100, extractor=Values(), reading="sample"),
        FID(samples=100, extractor=Values(), against="test"),
    ]
    protocols = {scored([one])["fid/values"].protocol for one in how}
    other = scored([how[0]], data={"type": "digits", "negative": True})["fid/values"].protocol
    assert len({*protocols, other}) == 5
    assert scored([how[0]])["fid/values"].protocol in protocols


# --- real data is seen once ------------------------------------------------------------------------------------------

SEEN: list[int] = []


@attrs.frozen
class Counting:
    """Counts the rows whose features it makes."""

    kind: str = "one"
    name: ClassVar[str] = "counting"
    takes: ClassVar[str] = "values"
    has_classes: ClassVar[bool] = False
    absent: ClassVar[str] = ""

    def build(self, space: Space, variable: str, source: Any) -> Counting:
        return self

    def identity(self) -> str:
        return f"counting {self.kind}"

    def __call__(self, rows: Tensor) -> FeatureBatch:
        SEEN.append(len(rows))
        return FeatureBatch(rows.flatten(1))


def features_made(metrics: Any, **tables: Any) -> int:
    SEEN.clear()
    scored(metrics, **tables)
    return sum(SEEN)


def test_features_of_data_are_made_once_for_all_runs_and_scores() -> None:
    metrics = [FID(samples=100, extractor=Counting()), KID(samples=100, extractor=Counting())]
    both = [*metrics, PRDC(samples=100, extractor=Counting())]
    assert features_made(metrics) == 100 + 1500 + 100  # draws; all of train; 100 rows of it
    assert features_made(both, encoder={"network": {"type": "mlp"}, "family": {"type": "gaussian"}}) == 100  # draws


def test_other_data_other_weights_and_another_split_are_looked_at() -> None:
    metric = FID(samples=100, extractor=Counting())
    assert features_made([metric]) == 1600
    assert features_made([metric], data={"type": "digits", "negative": True}) == 1600
    assert features_made([FID(samples=100, extractor=Counting("two"))]) == 1600
    assert features_made([FID(samples=100, extractor=Counting(), against="test")]) == 100 + 297
    assert features_made([metric]) == 100


def test_bits_drawn_afresh_are_not_kept() -> None:
    metric, data = FID(samples=100, extractor=Counting(), reading="sample"), {"type": "digits", "observe": "binarise"}
    decoder = {"network": {"type": "mlp"}, "family": {"type": "bernoulli"}}
    assert [features_made([metric], data=data, decoder=decoder) for _ in range(2)] == [1600, 1600]


def test_the_frechet_distance_to_data_is_that_of_its_moments() -> None:
    """A decoder that puts out exactly N(m, s^2 I) whatever the code, scored in the data's own space."""
    model = model_of(tiny())
    x = Digits().open("train").values["x"].double().flatten(1)
    x = (x + 0.5) / 17
    with torch.no_grad():
        for parameter in model.parts.modules["decoder"].parameters():
            parameter.zero_()
    found = scored([FID(samples=50, extractor=Values())], model)["fid/values"].value
    # a decoder of zeros puts out a constant c: a point, so that |m - c|^2 + tr S is left
    c = model.sample(1).double().flatten()
    assert found == pytest.approx(((x.mean(0) - c).square().sum() + x.var(0).sum()).item(), rel=1e-5)


# --- the classifier --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_classifier_is_trained_once_and_learns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier_network, "MAX_PASSES", 10)
    space, sources = Digits().spaces()["x"], (Digits(), Digits(labels=True), Digits(negative=True))
    first, again, other = (Classifier().build(space, "x", source) for source in sources)
    assert first.identity() == again.identity() and first.trained.right / first.trained.rows > 0.95
    assert capsys.readouterr().err.count("training a classifier on 1500 images, once") == 1
    assert other.identity() != first.identity()
    assert capsys.readouterr().err.count("training a classifier") == 1


def test_two_that_want_a_classifier_train_one(capsys: pytest.CaptureFixture[str]) -> None:
    space, names = Digits().spaces()["x"], list[str]()

    def want() -> None:
        names.append(Classifier(steps=20).build(space, "x", Digits()).identity())

    threads = [threading.Thread(target=want) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names) == 2 and len(set(names)) == 1
    assert capsys.readouterr().err.count("training a classifier") == 1


@pytest.mark.parametrize("size", [8, 12, 28, 64])
def test_a_classifier_takes_images_of_any_size(size: int, tmp_path: Path) -> None:
    rows = 6
    levels = np.random.RandomState(0).randint(0, 256, (rows, size, size, 3), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", x=levels, y=np.arange(rows) % 2)
    source = Arrays(str(tmp_path / "set.npz"), classes=2, test_fraction=0.5, variables={"x": "x", "y": "y"})
    found = Classifier(steps=2, width=4).build(source.spaces()["x"], "x", source)
    extracted = found(torch.from_numpy(levels).permute(0, 3, 1, 2))
    assert extracted.logits is not None
    assert (extracted.features.shape, extracted.logits.shape) == ((rows, 128), (rows, 2))


def test_folders_without_classes_have_no_classifier(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / split / "a.png")
    source = ImageFolder(str(tmp_path), size=8)
    absent = Classifier().build(source.spaces()["x"], "x", source).absent
    assert absent.startswith("the data has no labels to train a classifier on (") and "no class folder" in absent
    for split, class_ in itertools.product(("train", "val"), ("cats", "dogs")):
        (tmp_path / split / class_).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / split / class_ / "a.png")
    assert Classifier().build(source.spaces()["x"], "x", source).absent == ""


# --- Inception -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as the published one, but for what is in it."""
    graph = feature_extractor_inceptionv3
    torch.manual_seed(0)
    with (
        mock.patch.object(graph, "load_state_dict_from_url", lambda *a, **k: {}),
        mock.patch.object(graph.FeatureExtractorInceptionV3, "load_state_dict"),
    ):
        network = graph.FeatureExtractorInceptionV3("any", ["2048"])
    path: Path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def published(random_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """It passes for the published file."""
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(random_weights.read_bytes()).hexdigest()[:8])
    return random_weights


Build = Callable[..., Any]


def of_colour(**settings: Any) -> Any:
    return Inception(**settings).build(Space((3, 16, 16), "real", 0.0, 1.0, 256), "x", None)


def test_features_are_torch_fidelitys(published: Path) -> None:
    found = of_colour(weights=str(published))
    assert found.absent == ""
    rows = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    theirs = feature_extractor_inceptionv3.FeatureExtractorInceptionV3("any", ["2048", "logits"], str(published))
    features, logits = theirs(rows)
    ours = found(rows)
    torch.testing.assert_close(ours.features, features)
    torch.testing.assert_close(ours.logits, logits - theirs.fc.bias, rtol=1e-4, atol=1e-4)  # without the bias


def test_grey_is_repeated_and_said_so(published: Path) -> None:
    grey = Inception(weights=str(published)).build(Space((1, 16, 16), "real", 0.0, 1.0, 256), "x", None)
    rows = torch.randint(0, 256, (2, 1, 16, 16), dtype=torch.uint8)
    colour = of_colour(weights=str(published))(rows.repeat(1, 3, 1, 1))
    torch.testing.assert_close(grey(rows).features, colour.features)
    assert "grey repeated to 3 channels" in grey.identity()


def test_another_file_is_refused_by_its_hash(random_weights: Path) -> None:
    absent = of_colour(weights=str(random_weights)).absent
    begins = hashlib.sha256(random_weights.read_bytes()).hexdigest()[:8]
    assert absent == f"{random_weights} is not the published file: its sha256 begins with {begins}, not 6726825d"


def test_absent_weights_are_said_with_how_to_get_them(tmp_path: Path) -> None:
    absent = of_colour().absent
    hub = tmp_path / "torch" / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    for part in (str(hub), "91 MB", "https://", "weights = 'PATH'", "download = true", "type = 'classifier'"):
        assert part in absent
    assert of_colour(download=True).absent == ""  # it may be fetched
    assert str(tmp_path / "mine.pth") in of_colour(weights=str(tmp_path / "mine.pth"), download=True).absent


def test_without_torch_fidelity_it_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception, "graph", None)
    assert "pip install 'jointgen[inception]'" in of_colour().absent
