from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from plain_kernels import PlainKernel, PlainTemplate, plain_kernel


@pytest.fixture(scope="session")
def template() -> Iterator[PlainTemplate]:
    template = PlainTemplate("numpy,pandas")
    yield template
    template.close()


@pytest.fixture
async def kernel(template: PlainTemplate) -> AsyncIterator[PlainKernel]:
    async with plain_kernel(template) as kernel:
        yield kernel
