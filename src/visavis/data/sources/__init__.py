"""Where pictures come from: one file a format, opened by `open_source`."""

from visavis.data.sources.base import Source as Source
from visavis.data.sources.registry import Kind as Kind
from visavis.data.sources.registry import kind_of as kind_of
from visavis.data.sources.registry import open_source as open_source
from visavis.data.sources.registry import read_identities as read_identities
