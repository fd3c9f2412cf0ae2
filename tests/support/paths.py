"""Where the repository keeps what tests read."""

from __future__ import annotations

from pathlib import Path

REPO = Path(__file__).parents[2]
SHIPPED = REPO / "recipes"
FIXTURES = REPO / "tests" / "fixtures"
QUICKSTART = FIXTURES / "recipes" / "quickstart.toml"
"""AS-VAE on scikit-learn's digits, as it was shipped when the tests' figures were derived."""
SHARED_DATA = REPO.parent / "shared" / "data"
"""Real data sets that lie beside some checkouts. Tests that need them are skipped elsewhere."""
