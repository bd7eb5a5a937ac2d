"""Shape checks are on in tests: every annotated tensor is checked against its jaxtyping shape at run time."""

from jaxtyping import install_import_hook

from tests import typechecker

install_import_hook("ladle", f"{typechecker.__name__}.checked")
