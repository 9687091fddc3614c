"""Models that `limner plan` knows have as many parameters as the published ones.

Where the numbers are from: BLIP-2's is that of keras-hub's preset blip2_opt_2_7b, which is made from
Salesforce's checkpoint; those of Qwen2.5-VL stand in mteb's entries of models tuned from them; that of
Qwen2.5-3B is keras-hub's preset qwen2.5_3b_en; those of CLIP are from open_clip's table, in millions. Of
Salesforce/blip2-itm-vit-g none was found.
"""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, CLIPModel

from limner.plan.shapes import KNOWN

PUBLISHED = {
    "Salesforce/blip2-opt-2.7b": (AutoModelForImageTextToText, 3_744_761_856),
    "Qwen/Qwen2.5-VL-3B-Instruct": (AutoModelForImageTextToText, 3_754_622_976),
    "Qwen/Qwen2.5-VL-7B-Instruct": (AutoModelForImageTextToText, 8_292_166_656),
    "Qwen/Qwen2.5-3B-Instruct": (AutoModelForCausalLM, 3_085_938_688),
    "laion/CLIP-ViT-g-14-laion2B-s12B-b42K": (CLIPModel, 1_366_680_000),
    "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k": (CLIPModel, 2_539_570_000),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_known_shapes_are_those_of_the_published_models(name):
    kind, published = PUBLISHED[name]
    config = AutoConfig.for_model(**KNOWN[name])
    with torch.device("meta"):
        model = kind._from_config(config) if kind is CLIPModel else kind.from_config(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    # CLIP's are rounded to ten thousands.
    assert count == pytest.approx(published, abs=5000 if kind is CLIPModel else 0)
