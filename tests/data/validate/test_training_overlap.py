"""Whether a test shows people or pictures a model was trained on is told by name, by pixels and by look."""

import cv2
import numpy as np
import pytest
from safetensors.numpy import load_file, save

from visavis.data.sources import open_source
from visavis.data.validate.safetensors_file import from_bytes, read_metadata, to_bytes
from visavis.data.validate.trained_on import FILE, TrainedOn, read_file, take_training_set
from visavis.data.validate.training_overlap import OverlapSearch, find_near, radius_between
from visavis.errors import ModelFormatError


def faces(count, seed, size=112):
    """Pictures that resemble nothing but themselves."""
    rng = np.random.default_rng(seed)
    small = rng.uniform(0, 255, (count, 9, 9, 3)).astype(np.float32)
    return [np.clip(cv2.resize(p, (size, size), interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8) for p in small]


TRAINED = faces(60, 0)
NAMES = [f"person_{i}" for i in range(20)]


def trained(images=TRAINED, names=NAMES, **options):
    return TrainedOn((take_training_set(names, lambda i: images[i], len(images), **options),), "key")


def overlap(judged, trained_on=None):
    search = OverlapSearch(trained_on or trained())
    take = search.watching(judged)
    for name in judged:
        take(name)
    return search.result(judged)


def named(images, who="stranger"):
    return {f"{who}_{i}/{i}.png": image for i, image in enumerate(images)}


def test_other_people_and_pictures_are_no_overlap():
    found = overlap(named(faces(60, 1)))
    assert not found
    assert found.sentence() == ""
    assert (found.people, found.images, found.searched, found.trained) == (60, 60, 60, 60)


def test_the_same_pixels_under_other_names_are_found():
    found = overlap(named([*TRAINED[:7], *faces(3, 1)]))
    assert (found.identical, found.similar, found.shared_people) == (7, 0, ())
    assert found.sentence() == "inflated figures: of 10 pictures 7 are training pictures (7 identical)"


def compressed(quality):
    return lambda p: cv2.imdecode(cv2.imencode(".jpg", p, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


@pytest.mark.parametrize(
    "change",
    [compressed(50), lambda p: cv2.resize(p, (96, 96)), lambda p: cv2.convertScaleAbs(p, alpha=0.9, beta=10)],
    ids=["compressed", "resized", "brighter"],
)
def test_nearly_the_same_pictures_are_found(change):
    found = overlap(named([change(p) for p in TRAINED[:20]] + faces(5, 1)))
    assert (found.identical, found.similar) == (0, 20)
    assert "of 25 pictures 20 are training pictures (20 nearly identical)" in found.sentence()


@pytest.mark.parametrize(
    "layout", ["{0}/0001.png", "{0}/{0}_0001.png", "{0}_0001.png", "probe/{0}/1.png", "{0}/0/0.1.png"]
)
def test_people_of_the_same_name_are_found_in_every_layout(layout):
    judged = [layout.format(name) for name in ("person_3", "somebody", "person_5")]
    found = overlap(dict(zip(judged, faces(3, 1), strict=True)))
    assert found.shared_people == ("person_3", "person_5")
    assert found.sentence().startswith("inflated figures, if the names mean the same people: of 3 people judged 2 have")


def test_a_name_is_the_same_in_both_of_unicodes_forms():
    assert overlap({"Jose\u0301/1.png": faces(1, 1)[0]}, trained(names=["Jos\u00e9"])).shared_people


def test_numbers_are_no_names():
    """In a .rec and a .bin they count that file's people."""
    assert not overlap({f"{i:05d}/{i}.png": p for i, p in enumerate(faces(9, 1))}, trained(names=["00003", "4"]))


def test_blank_pictures_are_no_overlap():
    black = np.zeros((112, 112, 3), np.uint8)
    assert not overlap({"a/1.png": black, "b/1.png": black + 3}, trained([*TRAINED, black, black + 90]))


def test_damaged_pictures_are_left_out_and_the_others_found():
    def image(index):
        return None if index == 2 else TRAINED[index]

    found = overlap(named(TRAINED), TrainedOn((take_training_set(NAMES, image, 60),), ""))
    assert (found.identical, found.searched, found.trained) == (59, 59, 60)


def test_of_more_pictures_than_the_limit_some_are_looked_at_and_that_is_said():
    found = overlap(named(TRAINED), trained(limit=20))
    assert found.identical == 20
    assert found.sentence().endswith("; 20 of 60 looked through")
    assert overlap({"person_3/1.png": faces(1, 1)[0]}, trained(limit=0)).shared_people


def test_several_threads_see_the_same():
    one, four = (trained(faces(1000, 3, 32), workers=workers).sets[0] for workers in (1, 4))
    for name in ("names", "pixels", "hashes"):
        np.testing.assert_array_equal(getattr(one, name), getattr(four, name))


def test_the_sets_of_a_model_that_started_from_another_are_all_looked_through():
    both = TrainedOn((*trained(TRAINED[:30], ["first"]).sets, *trained(TRAINED[30:], ["second"]).sets), "")
    found = overlap(named(TRAINED), both)
    assert found.identical == 60
    assert overlap({"first/1.png": TRAINED[0], "second/2.png": TRAINED[1]}, both).shared_people == ("first", "second")


@pytest.mark.parametrize("radius", [6, 8, 10, 12])
def test_the_search_finds_exactly_what_lies_within_the_radius(radius):
    rng = np.random.default_rng(radius)
    known = rng.integers(0, 2**64, (3000, 2), np.uint64)
    bits = np.unpackbits(known[rng.permutation(3000)[:400]].view(np.uint8), axis=1)
    flips = rng.integers(0, 2 * radius + 1, 400)
    flips[:40], flips[40:80] = radius, radius + 1
    for row, count in zip(bits, flips, strict=True):
        row[rng.permutation(128)[:count]] ^= 1
    judged = np.packbits(bits, axis=1).view(np.uint64)
    expected = [np.bitwise_count(known ^ one).sum(1).min() <= radius for one in judged]
    assert find_near(judged, known, radius=radius).tolist() == expected
    assert 0 < sum(expected) < 400
    assert not find_near(judged, known[:0], radius=radius).any()


def test_the_radius_shrinks_as_chance_would_find_more():
    sizes = [(600, 8_000), (6_000, 100_000), (6_000, 1_000_000), (500_000, 1_000_000)]
    assert [radius_between(*s) for s in sizes] == [12, 10, 8, 6]


def test_what_is_kept_comes_back_and_holds_no_name_or_picture(tmp_path):
    kept = trained()
    kept.save(tmp_path)
    path = tmp_path / FILE
    found = read_file(path, key="key")
    for name in ("names", "pixels", "hashes", "images"):
        np.testing.assert_array_equal(getattr(found.sets[0], name), getattr(kept.sets[0], name))
    np.testing.assert_array_equal(found.sets[0].reference.median, kept.sets[0].reference.median)
    assert path.stat().st_size < 60 * 24 + 20 * 8 + 2 * 128 * 4 + 1000
    assert b"person" not in path.read_bytes()
    assert read_file(path, key="another") is None
    assert read_file(tmp_path / "nowhere", key="key") is None


def test_the_file_is_one_that_safetensors_reads_and_the_other_way_round(tmp_path):
    arrays = {"a": np.arange(6, dtype=np.uint64).reshape(3, 2), "b": np.array([1.5], np.float32), "c": np.zeros(0, int)}
    (tmp_path / "ours").write_bytes(to_bytes(arrays, {"key": "é"}))
    theirs = load_file(tmp_path / "ours")
    ours, about = from_bytes(save(arrays, metadata={"key": "é"}), name="theirs")
    assert about == read_metadata(tmp_path / "ours") == {"key": "é"}
    for key, value in arrays.items():
        np.testing.assert_array_equal(theirs[key], value)
        np.testing.assert_array_equal(ours[key], value)


def test_every_damage_is_refused_by_name(tmp_path):
    trained().save(tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    rng = np.random.default_rng(0)
    attempts = [whole[:cut] for cut in (0, 4, 8, 50, len(whole) - 1)]
    attempts += [whole.replace(b'"shape": [60]', b'"shape": [61]', 1), whole.replace(b'"U64"', b'"F64"', 1)]
    attempts += [whole.replace(b'"format": "1"', b'"format": "2"', 1), whole.replace(b"[60, 2]", b"[-60,2]", 1)]
    attempts += [b"\xff" * 8 + whole[8:], whole[:8] + b"[" * 500 + whole[508:]]
    for _ in range(200):
        data = bytearray(whole)
        data[rng.integers(0, 700)] = rng.integers(0, 256)
        attempts.append(bytes(data))
    for data in attempts:
        (tmp_path / FILE).write_bytes(data)
        try:
            read_file(tmp_path / FILE, key="key")
        except ModelFormatError as error:
            assert FILE in str(error)  # noqa: PT017 (a changed digest is another digest, and no damage)
    for data in attempts[:11]:
        (tmp_path / FILE).write_bytes(data)
        with pytest.raises(ModelFormatError):
            read_file(tmp_path / FILE, key="key")


def test_different_photographs_of_real_people_are_not_taken_for_each_other(shared):
    source = open_source(shared / "lfw-dev" / "images")
    ours, theirs = (source.subset(range(start, len(source), 12)) for start in (0, 6))
    kept = TrainedOn((take_training_set(["x"], ours.image, len(ours)),), "")
    assert not overlap({f"y{i}/1.jpg": theirs.image(i) for i in range(len(theirs))}, kept)
