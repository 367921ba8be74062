"""Reads folders that `compress-model` wrote; see docs/format.md."""

from . import folder
from .folder import FORMAT_VERSION, Folder, FormatError, open

__all__ = ["FORMAT_VERSION", "folder", "Folder", "FormatError", "open"]
