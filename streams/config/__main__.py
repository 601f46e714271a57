"""Print docs/configuration.md: `make docs`."""

from streams.config.config import Config
from streams.config.keys import page

print(page(Config), end="")
