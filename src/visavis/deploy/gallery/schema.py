"""The tables of a gallery's file, format 3, and what of each row its checksum covers."""

from __future__ import annotations

APPLICATION_ID = 0x76697361  # "visa", bytes 68..71 of the file
SCHEMA_VERSION = 3  # 1 had no encrypted names, 2 no checksums; `migration` brings both to 3
PAGE_SIZE = 16_384  # holds seven 512-d vectors; SQLite's 4096 would hold one and waste half

# Format 2 called its settings "meta" and its unknown faces "unknowns": a program of that format which still has the
# file open when it is migrated looks for them in every transaction, finds neither and gives up without writing.
SCHEMA = (
    "CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE subjects (id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, name TEXT NOT NULL, "
    "consent TEXT NOT NULL, created REAL NOT NULL, expires REAL, changed INTEGER NOT NULL, checksum INTEGER NOT NULL)",
    "CREATE INDEX subjects_changed ON subjects(changed)",
    "CREATE INDEX subjects_expires ON subjects(expires) WHERE expires IS NOT NULL",
    "CREATE TABLE samples (id INTEGER PRIMARY KEY AUTOINCREMENT, "
    "subject INTEGER NOT NULL REFERENCES subjects(id) ON DELETE CASCADE, template INTEGER NOT NULL, "
    "vector BLOB NOT NULL, weight REAL NOT NULL, quality REAL, picture BLOB, source BLOB, source_name TEXT, "
    "created REAL NOT NULL, crop_checksum INTEGER, checksum INTEGER NOT NULL, crop BLOB)",
    "CREATE INDEX samples_subject ON samples(subject)",
    "CREATE INDEX samples_source ON samples(source) WHERE source IS NOT NULL",
    "CREATE TABLE unknown_faces (id INTEGER PRIMARY KEY AUTOINCREMENT, vector BLOB NOT NULL, quality REAL, "
    "picture BLOB, source BLOB, source_name TEXT, created REAL NOT NULL, crop_checksum INTEGER, "
    "checksum INTEGER NOT NULL, crop BLOB)",
    "CREATE INDEX unknown_faces_picture ON unknown_faces(picture) WHERE picture IS NOT NULL",
    "CREATE TABLE forgotten (subject INTEGER PRIMARY KEY, changed INTEGER NOT NULL)",
    "CREATE INDEX forgotten_changed ON forgotten(changed)",
)

# What a row's checksum covers, in this order; `crop_checksum` covers the crop, so that searches need not read it.
COLUMNS = {
    "settings": ("key", "value"),
    "subjects": ("id", "key", "name", "consent", "created", "expires", "changed"),
    "samples": (
        "id", "subject", "template", "vector", "weight", "quality", "picture", "source", "source_name", "created",
        "crop_checksum",
    ),
    "unknown_faces": (
        "id", "vector", "quality", "picture", "source", "source_name", "created", "crop_checksum",
    ),
}  # fmt: skip
WITH_CROP = ("samples", "unknown_faces")


def columns(table: str, *, of: str = "") -> str:
    """The columns of a table and its checksum, for a SELECT; `of` is the table's alias."""
    dot = f"{of}." if of else ""
    return ", ".join(f"{dot}{column}" for column in (*COLUMNS[table], "checksum"))
