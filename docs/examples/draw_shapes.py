"""Draw circles and squares into folders, as images of one's own would lie there: python draw_shapes.py FOLDER."""

import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

COUNTS = {"train": 60, "test": 20}  # of each class
SIZE = 48  # pixels


def draw(shape: str, chance: random.Random) -> Image.Image:
    """Return one shape of a random colour and place."""
    image = Image.new("RGB", (SIZE, SIZE), tuple(chance.randrange(100) for _ in range(3)))
    left, top, side = chance.randrange(4, 16), chance.randrange(4, 16), chance.randrange(16, 28)
    pen = ImageDraw.Draw(image)
    paint = pen.ellipse if shape == "circle" else pen.rectangle
    paint((left, top, left + side, top + side), fill=tuple(chance.randrange(120, 256) for _ in range(3)))
    return image


def main(folder: Path) -> None:
    """Write FOLDER/{train,test}/{circle,square}/NUMBER.png."""
    chance = random.Random(0)
    for part, count in COUNTS.items():
        for shape in ("circle", "square"):
            place = folder / part / shape
            place.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                draw(shape, chance).save(place / f"{number}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
