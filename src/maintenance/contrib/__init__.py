"""Integrations with frameworks. The core imports none of them."""
