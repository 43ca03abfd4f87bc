"""The documentation as a site: ``make docs``. The pages are plain Markdown, so that GitHub shows them too."""

from pygments.lexers import PostgresLexer
from sphinx.application import Sphinx

import maintenance

project = "maintenance"
author = "The maintenance authors"
version = release = maintenance.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["README.md"]  # the index includes it
nitpicky = True

myst_heading_anchors = 4  # those that GitHub makes

autoclass_content = "both"  # the options are described by __init__
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # they name types that are not public
default_role = "code"
napoleon_custom_sections = [("Attributes", "params_style")]  # one line may describe several

html_theme = "furo"
html_theme_options = {
    "source_repository": "https://github.com/maintenance-py/maintenance",
    "source_branch": "main",
    "source_directory": "docs/",
}
html_title = f"maintenance {version}"
html_show_copyright = False
html_copy_source = False


def setup(app: Sphinx) -> None:
    """Read the SQL of the pages as PostgreSQL's, which quotes functions by ``$$``."""
    app.add_lexer("sql", PostgresLexer)
