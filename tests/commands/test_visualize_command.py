"""`visualize` writes the figures of a network and a page that shows them."""

import pytest

pytest.importorskip("matplotlib", reason="matplotlib, of the extra visualize, is not installed")
pytestmark = pytest.mark.backend_independent


def test_writes_the_page_with_the_curves_of_the_run(run, trained, photos, tmp_path):
    shown = run("visualize", trained / "model.keras", "--image", photos / "red" / "002.png", "--out", tmp_path / "page")
    assert shown == f"{tmp_path}/page/index.html\n"
    assert (tmp_path / "page" / "training_curves.png").exists()
    assert 'src="class_maps.png"' in (tmp_path / "page" / "index.html").read_text()


def test_refusals(refused, trained, photos, tmp_path):
    model, image = trained / "model.keras", photos / "red" / "002.png"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    (tmp_path / "other.csv").write_text("name,size\na,b\n")
    for network, picture, folder, history, sentence in (
        (model, "no.png", "page", (), "There is no image at 'no.png'."),
        (model, image, "full", (), "must be new or empty"),
        (tmp_path / "no.keras", image, "page", (), "There is no network at"),
        (model, image, "page", ("--history", "no.csv"), "There is no history at 'no.csv'; train writes history.csv."),
        (model, image, "page", ("--history", tmp_path / "other.csv"),
         "other.csv' is no history of a run: it must have a number for each epoch."),
    ):  # fmt: skip
        assert sentence in refused("visualize", network, "--image", picture, "--out", tmp_path / folder, *history)
    assert not (tmp_path / "page").exists()
