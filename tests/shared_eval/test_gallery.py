"""The page of nearest neighbours: what it shows, and how it looks in a real browser."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from shared_eval.embeddings import Rows
from shared_eval.gallery import MAX_ITEMS, Collector, Item, nearest, picture_of, rows_of, write_gallery


def test_nearest_are_those_of_a_loop_over_cosines():
    vectors = np.random.default_rng(0).normal(size=(20, 4))
    for query, (found, cosines) in zip((3, 11), nearest(vectors, [3, 11]), strict=True):
        others = [i for i in range(20) if i != query]

        def cosine(i, query=query):
            a, b = vectors[query], vectors[i]
            return a @ b / np.sqrt((a @ a) * (b @ b))

        assert found == sorted(others, key=cosine, reverse=True)[:8]
        assert cosines == pytest.approx([cosine(i) for i in found])


def test_queries_are_taken_evenly_and_each_has_its_own_neighbours():
    vectors = np.random.default_rng(0).normal(size=(20, 4))
    items = [Item(str(i)) for i in range(20)]
    rows = rows_of(items, {"a": vectors, "b": -vectors[::-1]}, queries=4)
    assert [query.caption for query, _ in rows] == ["0", "6", "12", "19"]
    for query, found in rows:
        for name, of in (("a", vectors), ("b", -vectors[::-1])):
            [(expected, cosines)] = nearest(of, [int(query.caption)])
            assert [int(neighbour.item.caption) for neighbour in found[name]] == expected
            assert [neighbour.cosine for neighbour in found[name]] == pytest.approx(cosines)


def test_few_items_and_vectors_of_zero_have_neighbours():
    assert nearest(np.zeros((3, 2)), [0]) == [([1, 2], [0.0, 0.0])]
    assert nearest(np.ones((1, 2)), [0]) == [([], [])]


def test_picture_is_a_thumbnail_of_the_image():
    image = np.random.default_rng(0).integers(0, 256, (3, 20, 40), dtype=np.uint8)
    uri = picture_of(image)
    decoded = np.array(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    np.testing.assert_array_equal(decoded, image.transpose(1, 2, 0))
    large = picture_of(np.zeros((3, 100, 200), np.uint8))
    assert Image.open(io.BytesIO(base64.b64decode(large.partition(",")[2]))).size == (64, 32)


def test_collector_keeps_an_even_selection_and_passes_rows_on():
    total = 2 * MAX_ITEMS + 1
    collector = Collector()
    batches = [
        Rows([str(i) for i in range(start, min(start + 300, total))], np.ones((min(300, total - start), 2)))
        for start in range(0, total, 300)
    ]
    assert [batch is other for batch, other in zip(collector.rows(batches), batches, strict=True)]
    assert [item.caption for item in collector.items] == [str(i) for i in range(0, total, 4)]
    assert len(collector.vectors) == len(collector.items)


@pytest.fixture
def page(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (12, 3, 8, 8), dtype=np.uint8)
    vectors = np.random.default_rng(1).normal(size=(12, 4))
    collector = Collector()
    names = [f"<b>{i}</b>.png" for i in range(12)]
    batch = Rows(names, vectors, item=lambda i: Item(names[i], picture_of(images[i])))
    list(collector.rows([batch]))
    return collector.write(tmp_path / "page.html", "folder:photos")


def test_page_is_whole_and_escapes_names(page):
    text = page.read_text()
    assert "<b>3</b>.png" not in text
    assert "&lt;b&gt;3&lt;/b&gt;.png" in text
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert text.count("<section>") == 10
    assert text.count("<img") == 10 * (1 + 8)


def test_text_under_several_embeddings_has_no_pictures(tmp_path):
    vectors = np.random.default_rng(1).normal(size=(2, 5, 4))
    items = [Item(f"sentence {i}") for i in range(5)]
    embeddings = {"plain": vectors[0], "hard": vectors[1]}
    text = write_gallery(tmp_path / "page.html", "three novels", items, embeddings).read_text()
    assert text.count("<h3>plain</h3>") == text.count("<h3>hard</h3>") == 5
    assert "<img" not in text
    assert "sentence 4" in text


@pytest.mark.browser
def test_page_works_in_a_browser(page, browser):
    view = browser.new_page(viewport={"width": 375, "height": 800})
    faults = []
    view.on("pageerror", lambda error: faults.append(str(error)))
    view.goto(page.as_uri())
    assert not faults
    assert view.evaluate("() => [...document.images].every(image => image.naturalWidth > 0)")
    assert view.evaluate("() => document.documentElement.scrollWidth") <= 375
    assert view.locator("section").first.locator("li").count() == 8
