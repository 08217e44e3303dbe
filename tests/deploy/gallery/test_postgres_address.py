"""Addresses of PostgreSQL: a schema, a password that nobody is shown."""

import pytest

from visavis.deploy.gallery.postgres_address import (
    has_password,
    is_postgres,
    split_schema,
    without_password,
    without_secrets,
)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://ada:secret@host:5432/faces", "postgresql://ada@host:5432/faces"),
        ("postgres://ada:se@c:r/et@host/faces?sslmode=require", "postgres://ada@host/faces?sslmode=require"),
        ("postgresql://host/faces?user=ada&password=secret", "postgresql://host/faces?user=ada&password=***"),
        (
            "postgresql://ada@/faces?host=/run/pg&sslpassword=secret",
            "postgresql://ada@/faces?host=/run/pg&sslpassword=***",
        ),
        ("postgresql:///?service=faces", "postgresql:///?service=faces"),
    ],
)
def test_an_address_is_shown_without_its_password(address, shown):
    assert is_postgres(address)
    assert without_password(address) == shown
    assert has_password(address) == ("secret" in address or "se@c" in address)


def test_messages_of_the_server_are_shown_without_passwords():
    said = "bad postgresql://ada:se@cret@host/x and host=a password='s e' user=b password = secret"
    assert "se" not in without_secrets(said).replace("user", "")


def test_the_schema_is_named_in_the_address():
    assert split_schema("postgresql://ada@h/faces?sslmode=require&schema=team%20a&options=-c%20x%3D1") == (
        "postgresql://ada@h/faces?sslmode=require&options=-c%20x%3D1",
        "team a",
    )
    assert split_schema("postgresql://h/faces") == ("postgresql://h/faces", "visavis")
