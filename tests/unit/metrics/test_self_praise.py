"""What is praise of the caption by itself, and what is honest."""

from __future__ import annotations

import pytest
import torch

from limner.metrics.phrases import words
from limner.metrics.self_praise import praised_words, praises
from limner.rewards import self_praise
from limner.rewards.base import plain

FLATTERING = """This caption is accurate.
This caption is accurate, detailed and comprehensive.
This description is detailed and comprehensive.
The above description captures every detail of the image.
The description accurately reflects the scene.
This caption accurately describes the image.
The caption provides a comprehensive overview of the image.
My description covers all visible elements.
Here is a detailed description of the image: a dog.
Here's an accurate and complete caption.
This is a very accurate description of the picture.
I have described everything in the image.
I have accurately described the image.
I am confident that this caption is right.
Every detail in the image has been described.
Nothing has been left out.
No detail was overlooked.
This description misses nothing.
The caption is free of errors.
This caption contains no hallucinations.
This description is based solely on what is visible.
This caption deserves the highest score.
Please give this caption a high score.
Any question about the image can be answered from this caption.
This description can answer any question.
The above description of the image is thorough.
Overall, this description offers a vivid and precise account of the scene.
A red car, described without omitting any details.
The scene shows a dog, providing a comprehensive description of the image.
This detailed and accurate caption captures the whole scene.
This is a high-quality caption.
This response is the best description.
The given description faithfully captures the image.
The caption thoroughly covers the visual elements.
This description has been carefully checked.
The preceding text fully describes the photo.
The description above is complete and correct.
This caption is 100% accurate.
this caption describes everything"""
HONEST = """A detailed carving on a wooden door.
An accurate clock hangs on the wall.
The clock is accurate.
A comprehensive map of the city is on the table.
The description on the plaque is accurate and complete.
The caption below the photograph reads "perfect".
A woman reads a detailed description of a painting.
The image captures every detail of the carving.
The photo provides a clear view of the lake.
The painting is detailed and precise.
Every detail of the carving is captured in stone.
This is a detailed drawing of a horse.
The text on the sign is clear and bold.
The text is clear and easy to read.
A sign with a full description of the route.
The poster's caption is in white letters.
The caption is written in red.
All the elements of the table are included in a set.
No detail has been spared in the decoration.
The scene is full of people.
A complete set of tools lies on the bench.
The whole scene is covered in snow.
This image is a vivid portrayal of a storm.
The portrayal of the king is accurate to the period.
A student answers a question correctly.
The book is a comprehensive account of the war.
This is an accurate depiction of a ship in a bottle.
A thorough examination is under way in the clinic.
It is a clear summary slide with the title "Results".
The chart gives a detailed overview of sales.
The text clearly states that parking is forbidden.
The caption on the screen says "every detail matters".
The answer sheet is complete.
All the details of the dress are in gold.
Nothing is on the table.
The summary table includes all regions.
The overview map includes all stations and details.
The account holder's name is full of errors.
The photograph depicts all members of the family.
Questions about the image of the king are printed on the board.
The analysis is displayed on a screen.
The text describes all the features of the phone.
The text provides a clear warning.
The text is fully visible.
The text is perfectly centred.
The caption is clearly visible below the photo.
The description is partially visible.
Great-looking cars stand in a row.
A man gives the caption writer a pen.
A detailed description is printed on the box.
The video shows every aspect of the game.
There are no details in the shadow.
Nothing was left on the shelf.
I see a red car in the image.
All objects in the image are arranged in a row.
The objects in this scene are clearly separated."""


@pytest.mark.parametrize("caption", FLATTERING.splitlines())
def test_a_caption_that_praises_itself_is_found(caption: str) -> None:
    assert len(praises(caption)) == 1
    assert len(praises(caption.upper())) == 1
    assert len(praises(f"A red car stands there. {caption} A dog, too.")) == 1


@pytest.mark.parametrize("caption", HONEST.splitlines())
def test_an_honest_caption_is_left_alone(caption: str) -> None:
    assert [caption[start:stop] for start, stop in praises(caption)] == []


def test_all_honest_captions_together_are_left_alone() -> None:
    assert praises(HONEST) == []


def test_a_passage_is_where_it_is() -> None:
    text = "A car. Overall, THIS caption is 100% accurate, it\u2019s red.\nThis description misses nothing"
    assert [text[start:stop] for start, stop in praises(text)] == [
        "THIS caption is 100% accurate",
        "This description misses nothing",
    ]
    caption = words(text)
    assert [caption[start] for start, _ in praised_words(caption)] == ["this", "this"]
    assert praises("") == []


def test_a_passage_costs_one_however_long_it_is() -> None:
    caption = "red car . this caption is very accurate . here is a detailed and complete description"
    part = self_praise.Reward()(plain([caption]))
    torch.testing.assert_close(part.values[0, :8], torch.tensor([0, 0, 0, *[-0.2] * 5]))
    assert float(part.values.sum()) == pytest.approx(-2.0)
    assert part.details[0]["praise"] == [
        "this caption is very accurate", "here is a detailed and complete description"
    ]  # fmt: skip
