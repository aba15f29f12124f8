"""The demonstration: a shop double, a scripted model and the tasks that are run against the real product.

Nothing of the product imports this package; it reaches the product as a user does (command line, HTTP).
"""
