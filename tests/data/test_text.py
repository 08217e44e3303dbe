"""Words of files and folders in their natural order."""

from visavis.data.text import natural_key


def test_natural_key_orders_names_of_any_shape():
    names = ["a10", "a2", "a", "10", "2", "", "a2b", "b", "02", "²"]
    ordered = sorted(names, key=natural_key)
    assert ordered.index("a2") < ordered.index("a10")
    assert ordered.index("2") < ordered.index("10")
    assert len({natural_key(name) for name in names}) == len(names)
