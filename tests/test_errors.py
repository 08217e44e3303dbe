from visavis.errors import unknown_name


def test_an_unknown_name_gets_the_nearest_and_the_list():
    assert unknown_name("head", "arcfase", ["softmax", "arcface"]) == (
        "unknown head 'arcfase'; did you mean 'arcface'? valid: arcface, softmax"
    )


def test_nothing_near_is_not_guessed():
    assert "did you mean" not in unknown_name("head", "zzzz", ["softmax", "arcface"])


def test_a_long_list_is_cut_to_the_nearest_and_says_so():
    names = [f"optimizer.field{i}" for i in range(100)]
    message = unknown_name("key", "optimizer.field7x", names)
    assert "did you mean 'optimizer.field7'" in message
    assert message.endswith("... (100 in all)")
