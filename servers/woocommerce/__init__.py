"""The shop's orders, customers and products (WooCommerce)."""
