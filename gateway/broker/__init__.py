"""The boundary for effects: every tool call of every session, from a kernel's socket or from the direct path."""

from .broker import Broker as Broker
from .contexts import ContextFactory as ContextFactory
from .contexts import Contexts as Contexts
from .journal import Journal as Journal
