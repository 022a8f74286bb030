"""Not run: what a type checker must understand of the package."""

from typing import assert_type

import lancet


def blocking(client: lancet.Client) -> str:
    stream = client.generate("a cat", preview=lancet.PreviewOptions(5, method="vae"), output_format="webp")
    assert_type(stream, lancet.Stream[lancet.ImageEvent, lancet.ImageResult])
    for event in stream:
        if isinstance(event, lancet.Preview):
            assert_type(event.picture, lancet.Picture)
        elif isinstance(event, lancet.Progress):
            assert_type(event.step, int)
    with client.edit("cat.png", "make it blue", resolution="256") as edit:
        picture = edit.result().picture
    return client.describe(picture.data, "What is it?").result().text


async def asynchronous(client: lancet.AsyncClient) -> float:
    async with client.describe(b"file") as stream:
        async for event in stream:
            if isinstance(event, lancet.Delta):
                assert_type(event.text, str)
    assert_type(await stream.result(), lancet.TextResult)
    try:
        return (await client.generate("a cat").result()).timings.total
    except lancet.InvalidArgument as error:
        assert_type(error.field, str | None)
        raise
