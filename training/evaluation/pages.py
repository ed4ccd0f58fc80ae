"""Makes every HTML page of the project, from the templates next to this module."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from training.evaluation.words import brief, ends, told, whole_number


def _number(value: float, spec: str = ",") -> str:
    """A number as `format` writes it; by default with separators between the thousands."""
    return format(value, spec)


_ENVIRONMENT = Environment(
    loader=PackageLoader("training.evaluation"),
    autoescape=True,
    undefined=StrictUndefined,  # a misspelt name fails instead of leaving a gap on the page
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.filters.update(number=_number, of=whole_number, told=told, ends=ends, brief=brief)


def render(template: str, **values: Any) -> str:
    """A self-contained HTML page.

    Args:
        template: a file of `templates/`.
        values: what the template names; all text is escaped, except plots, which `plots.svg` marks as safe.

    Raises:
        jinja2.UndefinedError: the template names a value that is not given.
    """
    return _ENVIRONMENT.get_template(template).render(values)
