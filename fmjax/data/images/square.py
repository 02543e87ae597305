"""Images of any size as squares of one, as ADM's data were made (arXiv:2105.05233)."""

from PIL import Image


def to_square(image: Image.Image, side: int) -> Image.Image:
    """Scales the shorter side to `side` and crops the centre.

    As long as the shorter side is twice as large or more, it is halved by a box filter; the rest is
    bicubic. An image that has the size already keeps its pixels.

    Args:
        image: grey or in colour.
        side: of the square, in pixels.

    Returns:
        The image of ``side x side`` pixels.
    """
    while min(image.size) >= 2 * side:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = side / min(image.size)
    if scale != 1:
        width, height = (max(side, round(x * scale)) for x in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = ((x - side) // 2 for x in image.size)
    return image.crop((left, top, left + side, top + side))
