"""A complete provider in forty lines, to be copied."""

from .plugin import TemplateProvider, TemplateSettings

__all__ = ["TemplateProvider", "TemplateSettings"]
