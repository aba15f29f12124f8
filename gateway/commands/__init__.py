"""Groups of commands of `omniops`, one module each."""
