"""Figures show the numbers that they are made of, with nothing cut off and no words on top of each other."""

import itertools

import keras
import numpy as np
import pytest
from small_networks import MLP_BUILDERS, for_all_builders, small

import keras_mixers
from keras_mixers import visualize

pytest.importorskip("matplotlib", reason="matplotlib, of the extra visualize, is not installed")

from matplotlib.text import Text

from keras_mixers.data import DATASETS
from keras_mixers.models import PRESETS
from keras_mixers.training.results import RunResult, add_result
from keras_mixers.visualize.costs import accuracy_points
from keras_mixers.visualize.style import mosaic, scaled

ROWS = [
    {"epoch": 1, "loss": 1.9, "accuracy": 0.3, "val_loss": 1.8, "val_accuracy": 0.35, "learning_rate": 0.01},
    {"epoch": 2, "loss": 1.1, "accuracy": 0.6, "val_loss": 1.3, "val_accuracy": 0.55, "learning_rate": 0.0},
]
IMAGE = np.random.default_rng(0).integers(0, 256, (48, 40, 3)).astype("uint8")


@pytest.fixture(scope="module")
def model(randomize):
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    model = randomize(keras_mixers.create_model("splitmixer_i_256_8", dim=48))
    model.class_names = names
    return model


FIGURES = {
    "patch_embedding": visualize.patch_embedding,
    "depthwise_kernels": visualize.depthwise_kernels,
    "channel_reach": visualize.channel_reach,
    "feature_maps": lambda model, save=None: visualize.feature_maps(model, IMAGE, save=save),
    "class_maps": lambda model, save=None: visualize.class_maps(model, [IMAGE, IMAGE[::-1]], save=save),
    "training_curves": lambda model, save=None: visualize.training_curves(ROWS, "a run", save=save),
    "accuracy_against_params": lambda model, save=None: visualize.accuracy_against_cost("cifar10", "params", save=save),
    "accuracy_against_macs": lambda model, save=None: visualize.accuracy_against_cost("imagenet", "macs", save=save),
    "savings": lambda model, save=None: visualize.savings(save=save),
}


@pytest.mark.backend_independent
@pytest.mark.parametrize("figure", FIGURES)
def test_is_written_with_all_words_inside_and_apart(figure, model, tmp_path, monkeypatch):
    drawn = FIGURES[figure](model, save=tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    words, draw = {}, Text.draw

    def record(text, renderer):  # ticks beyond the axes have words, too, but are not drawn
        if text.get_text() and text.get_visible():
            words[text] = text.get_window_extent(renderer)
        draw(text, renderer)

    monkeypatch.setattr(Text, "draw", record)
    drawn.savefig(tmp_path / "again.png", dpi=drawn.dpi)
    assert words
    inside = drawn.bbox
    for text, box in words.items():
        assert inside.x0 <= box.x0 <= box.x1 <= inside.x1, text
        assert inside.y0 <= box.y0 <= box.y1 <= inside.y1, text
    for (text, box), (other, below) in itertools.combinations(words.items(), 2):
        overlap = min(box.x1, below.x1) - max(box.x0, below.x0), min(box.y1, below.y1) - max(box.y0, below.y0)
        assert min(overlap) < 1, f"{text} lies on {other}"


@pytest.mark.backend_independent
@for_all_builders
def test_every_network_can_be_drawn(builder, randomize):
    model = randomize(small(builder, input_shape=(16, 16, 3)))
    kernels = visualize.token_kernels if builder in MLP_BUILDERS else visualize.depthwise_kernels
    for draw in (visualize.patch_embedding, kernels, visualize.channel_reach):
        assert draw(model).axes
    image = np.random.default_rng(0).normal(size=(16, 16, 3)).astype("float32")
    assert len(visualize.feature_maps(model, image).axes) == 4  # the image, the embedding, two blocks
    assert len(visualize.class_maps(model, image[None]).axes) == 5  # the image, three classes, the scale


def tiles(picture, count, side):
    """Cut a mosaic into its tiles again, without their frames."""
    columns = picture.shape[1] // (side + 2)
    corners = [(i // columns * (side + 2) + 1, i % columns * (side + 2) + 1) for i in range(count)]
    return np.stack([picture[top : top + side, left : left + side] for top, left in corners])


@pytest.mark.backend_independent
def test_a_mosaic_holds_its_tiles(rng):
    given = rng.uniform(size=(7, 20, 20, 3))
    picture = mosaic(given, frames=np.zeros((7, 3)))
    assert picture.shape == (3 * 22, 3 * 22, 3)
    np.testing.assert_array_equal(tiles(picture, 7, 20), given)
    assert not picture[0, :22].any()
    np.testing.assert_array_equal(picture[-22:, -44:], 1)  # two places stay white
    np.testing.assert_array_equal(tiles(mosaic(given[:, :4, :4]), 7, 16)[:, ::4, ::4], given[:, :4, :4])


@pytest.mark.backend_independent
def test_legend_of_accuracies_covers_no_point():
    figure = visualize.accuracy_against_cost("cifar10")
    figure.canvas.draw()
    (axes,) = figure.axes
    legend = axes.get_legend().get_window_extent()
    points = np.concatenate([axes.transData.transform(line.get_xydata()) for line in axes.lines])
    assert len(points) > 30
    assert not any(legend.contains(*point) for point in points)


@pytest.mark.backend_independent
def test_scales_each_tile_by_itself():
    np.testing.assert_allclose(scaled(np.array([[0.0, 5], [2, 2]])), [[0, 1], [0, 0]])
    np.testing.assert_allclose(scaled(np.array([[-4.0, 2], [0, 0]]), symmetric=True), [[0, 0.75], [0.5, 0.5]])


def test_patch_embedding_shows_each_kernel_in_its_colours(model):
    shown = visualize.patch_embedding(model).axes[0].images[0].get_array()
    kernel = keras.ops.convert_to_numpy(model.get_layer("patch_embed").convolution.kernel)
    for channel in (0, 31, 47):
        own = kernel[..., channel]
        expected = (own - own.min()) / (own.max() - own.min())
        np.testing.assert_allclose(tiles(shown, 48, 16)[channel, ::8, ::8], expected, atol=1e-6)


def test_feature_maps_are_those_of_the_layers_with_frames_around_what_was_mixed(model):
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    figure = visualize.feature_maps(model, IMAGE, ["patch_embed", "block_1_channel"], channels=None)
    batch = model.pixels.preprocess([IMAGE], data_format=keras.config.image_data_format())
    expected = keras_mixers.feature_extractor(model, ["block_1_channel"]).predict(batch, verbose=0)["block_1_channel"]
    expected = expected[0] if keras.config.image_data_format() == "channels_first" else np.moveaxis(expected[0], -1, 0)
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), model.pixels.crop(IMAGE) / 255)  # what it sees
    shown = figure.axes[2].images[0].get_array()
    for channel, framed in ((0, visualize.style.ORANGE), (15, visualize.style.ORANGE), (16, visualize.style.BLUE)):
        scale = scaled(expected[channel][None])[0]
        np.testing.assert_allclose(tiles(shown, 48, 16)[channel], colormaps["viridis"](scale)[..., :3], atol=0.02)
        row, column = divmod(channel, shown.shape[1] // 18)
        np.testing.assert_allclose(shown[18 * row, 18 * column], to_rgb(framed))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["mixed", "not mixed in this block"]
    assert not visualize.feature_maps(model, IMAGE, ["patch_embed", "block_0_spatial"]).legends


def test_pairs_of_kernels_are_bars_beside_their_product(randomize):
    model = randomize(small("SplitMixerI", dim=4))
    (axes,) = visualize.depthwise_kernels(model, blocks=[1], kernels=4).axes
    across_width, across_height = axes.containers[:2]
    mixer = model.get_layer("block_1_spatial")
    width, height = (
        keras.ops.convert_to_numpy(convolution.kernel).reshape(3, 4)[:, 0]
        for convolution in (mixer.width_convolution, mixer.height_convolution)
    )
    heights = np.array([bar.get_height() for bar in across_width])
    np.testing.assert_allclose(-heights / np.abs(heights).max(), width / np.abs(width).max(), atol=1e-6)
    lengths = np.array([bar.get_width() for bar in across_height])
    np.testing.assert_allclose(lengths / np.abs(lengths).max(), height / np.abs(height).max(), atol=1e-6)
    red = axes.images[0].get_array()[..., 0] > axes.images[0].get_array()[..., 2]
    np.testing.assert_array_equal(red, np.outer(height, width) > 0)


@pytest.mark.parametrize(
    ("builder", "mixer", "product"),
    [
        ("MLPMixer", "block_1_spatial", "hidden_dense"),
        ("ResMLP", "block_1_spatial", "product"),
        ("gMLP", "block_1_channel", "gate_dense"),
    ],
)
def test_weights_for_positions_lie_in_the_grid(builder, mixer, product, randomize):
    from matplotlib import colormaps

    model = randomize(small(builder, dim=80))  # 40 hidden units in an MLP-Mixer, for a grid of 4 × 5
    kernel = keras.ops.convert_to_numpy(getattr(model.get_layer(mixer), product).kernel)
    units = kernel.shape[1]
    (axes,) = visualize.token_kernels(model, blocks=[1]).axes
    shown = tiles_of_a_grid(axes.images[0].get_array(), units, (4, 5))
    for unit in (0, 1, units - 1):
        expected = kernel[:, unit].reshape(4, 5) / np.abs(kernel[:, unit]).max()
        np.testing.assert_allclose(shown[unit], colormaps["RdBu_r"](0.5 + 0.5 * expected)[..., :3], atol=0.01)
    assert len(visualize.token_kernels(model, units=9).axes) == 2
    chosen = np.sort(np.random.default_rng(3).permutation(units)[:9])
    (axes,) = visualize.token_kernels(model, blocks=[1], units=9, seed=3).axes
    np.testing.assert_array_equal(tiles_of_a_grid(axes.images[0].get_array(), 9, (4, 5)), shown[chosen])


def tiles_of_a_grid(picture, count, grid):
    """Cut a mosaic of tiles of 4 × 5 positions, each enlarged to four pixels, into these positions."""
    height, width = 4 * grid[0] + 2, 4 * grid[1] + 2
    rows, columns = picture.shape[0] // height, picture.shape[1] // width
    cut = picture.reshape(rows, height, columns, width, 3).swapaxes(1, 2).reshape(-1, height, width, 3)
    return cut[:count, 1:-1:4, 1:-1:4]


@pytest.mark.backend_independent
def test_curves_of_a_run_and_of_model_fit(rng):
    figure = visualize.training_curves(ROWS)
    accuracy, loss, rate = figure.axes
    assert all(tick == int(tick) for tick in accuracy.get_xticks())
    assert [line.get_ydata().tolist() for line in accuracy.lines] == [[30, 60], [35, 55.00000000000001]]
    assert [line.get_ydata().tolist() for line in loss.lines] == [[1.9, 1.1], [1.8, 1.3]]
    assert [line.get_ydata().tolist() for line in rate.lines] == [[0.01, 0.0]]
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    network.compile("sgd", "mse")
    history = network.fit(rng.normal(size=(8, 2)), rng.normal(size=8), epochs=3, verbose=0)
    (loss,) = visualize.training_curves(history).axes
    assert loss.lines[0].get_xdata().tolist() == [1, 2, 3]
    assert loss.lines[0].get_ydata().tolist() == history.history["loss"]


@pytest.mark.backend_independent
def test_points_are_the_published_networks_and_our_runs(tmp_path):
    points = accuracy_points("cifar10", "macs")
    assert ("splitmixer_i_256_8", 65_219_072, 93.91) in {(point.model, point.cost, point.top1) for point in points}
    assert {point.family for point in points} == set(visualize.costs.FAMILIES)
    assert not any(point.ours for point in points)
    assert {published.dataset for preset in PRESETS.values() for published in preset.published} == set(DATASETS)
    for recipe, changes, model, parameters, top1 in (
        ("cifar10_splitmixer_i", "", "splitmixer_i_256_8", 275_834, 93.5),
        ("cifar10_splitmixer_i", "epochs=1", "splitmixer_i_256_8", 275_834, 40.0),
        ("cifar10_splitmixer_iv", "", "splitmixer_iv_256_8", 307_466, 92.0),
        ("cifar10_splitmixer_iv", "precision=bfloat16;augmentation.mixup=0.5", "splitmixer_iv_256_8", 307_466, 93.0),
        ("cifar10_splitmixer_iv", "epochs=9;pixels.size=64", "splitmixer_iv_256_8", 307_466, 94.0),  # costs more
        ("cifar10_smoke", "", "splitmixer_i_256_8", 46_274, 62.0),  # a smaller network than the model's name says
        ("cifar100_splitmixer_i", "", "splitmixer_i_256_8", 298_964, 72.0),
    ):
        row = RunResult(recipe, changes, model, parameters, 1, 42, top1, None, 1.0, "jax 1", "a CPU", "")
        add_result(tmp_path / "cifar10.csv", row)
    ours = [point for point in accuracy_points("cifar10", "params", tmp_path / "cifar10.csv") if point.ours]
    assert [(point.model, point.cost, point.top1) for point in ours] == [
        ("splitmixer_i_256_8", 275_834, 93.5),
        ("splitmixer_iv_256_8", 307_466, 93.0),
    ]


@pytest.mark.backend_independent
def test_points_of_savings_lie_on_the_papers_formulas():
    by_ratio, by_segments, networks = visualize.savings(dim=840).axes
    for line, points in zip(by_ratio.lines[::2], by_ratio.lines[1::2], strict=True):
        expected = np.interp(points.get_xdata(), line.get_xdata(), line.get_ydata())
        np.testing.assert_allclose(points.get_ydata(), expected, atol=0.2)  # a segment has whole channels
    lines = by_segments.lines
    assert lines[1].get_xdata().tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    for points, formula in zip(lines[1::2], [lambda s: 1 - 1 / s**2] * 2 + [lambda s: 1 - 1 / s] * 2, strict=True):
        np.testing.assert_allclose(points.get_ydata(), 100 * formula(points.get_xdata()), atol=1e-9)
    names = [label.get_text() for label in networks.get_yticklabels()]
    widths = [bar.get_width() for bar in networks.containers[0]]
    assert widths[names.index("splitmixer_i_256_8")] == pytest.approx(100 * (1 - 275_834 / 594_186))


BARE = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
REFUSED = {  # message: call
    "model must have a PatchEmbed": lambda model: visualize.patch_embedding(BARE),
    "model must have spatial mixers": lambda model: visualize.depthwise_kernels(BARE),
    r"blocks must be from 0 to 7 .* got blocks=\[8\]": lambda model: visualize.depthwise_kernels(model, blocks=[8]),
    "model must mix all positions, as MLP-Mixer, ResMLP and gMLP do": visualize.token_kernels,
    "model must have spatial mixers, as ConvMixer and SplitMixer do": lambda model: visualize.depthwise_kernels(
        small("gMLP")
    ),
    r"blocks must be from 0 to 1 .* got blocks=\[2\]": lambda model: visualize.token_kernels(small("gMLP"), [2]),
    "units must be": lambda model: visualize.token_kernels(small("gMLP"), units=0),
    "kernels must be": lambda model: visualize.depthwise_kernels(model, kernels=-1),
    "did you mean 'block_0_channel'": lambda model: visualize.feature_maps(model, IMAGE, ["block_0_chanel"]),
    "layers must give feature maps, got 'pool'": lambda model: visualize.feature_maps(model, IMAGE, ["pool"]),
    "channels must be": lambda model: visualize.feature_maps(model, IMAGE, channels=0),
    "There is no image at 'no.png'": lambda model: visualize.feature_maps(model, "no.png"),
    "An image must be": lambda model: visualize.feature_maps(model, IMAGE[0]),
    # A network that does not know its pixels cannot resize them, and says what it takes.
    r"images must be a batch as .* takes it, \(None, 16, 16, 3\)": lambda model: visualize.feature_maps(
        small(input_shape=(16, 16, 3)), np.zeros((20, 16, 3), "float32")
    ),
    "top must be": lambda model: visualize.class_maps(model, [IMAGE], top=0),
    "dataset must be": lambda model: visualize.accuracy_against_cost("mnist"),
    "cost must be": lambda model: visualize.accuracy_against_cost(cost="seconds"),
    "There are no results in 'no.csv'": lambda model: visualize.accuracy_against_cost(results="no.csv"),
    "other.csv. holds no results: its columns are .*epoch": lambda model: visualize.accuracy_against_cost(
        results="other.csv"
    ),
    "dim must be at least 8": lambda model: visualize.savings(4),
    "history must have a row for each epoch": lambda model: visualize.training_curves([]),
}


@pytest.mark.backend_independent
@pytest.mark.parametrize("message", REFUSED)
def test_refuses(message, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.csv").write_text("epoch,loss\n")
    with pytest.raises(FileNotFoundError if "There" in message else ValueError, match=message):
        REFUSED[message](model)


@pytest.mark.backend_independent
def test_without_matplotlib(model, monkeypatch):
    find_spec = visualize.style.importlib.util.find_spec
    monkeypatch.setattr(
        visualize.style.importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find_spec(name)
    )
    with pytest.raises(ImportError, match=r'pip install "keras-mixers\[visualize\]"'):
        visualize.patch_embedding(model)
