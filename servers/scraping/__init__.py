"""A site's pages, crawled with care for both sides, and searched by words and by meaning."""
