"""Every function of the catalogue, by name: the module that the tools' process runs."""

from importlib import import_module
from pathlib import Path

from worlds.catalogue.entries import CATALOGUE

for _path in sorted(Path(__file__).parent.glob("*_tools.py")):
    import_module(f"worlds.catalogue.{_path.stem}")
TOOLS = {name: entry.function for name, entry in CATALOGUE.items()}
