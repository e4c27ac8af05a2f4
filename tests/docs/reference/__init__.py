"""The pages of docs/ that are made of the code: ``python -m tests.docs.reference`` writes them."""

from __future__ import annotations

from tests.docs.reference.api import api
from tests.docs.reference.configuration import configuration
from tests.docs.reference.troubleshooting import troubleshooting

PAGES = {
    "configuration.md": configuration,
    "api.md": api,
    "troubleshooting.md": troubleshooting,
}
