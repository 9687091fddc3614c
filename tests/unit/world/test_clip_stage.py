"""What the stage of the video captioner learns from: targets, single frames, and one loss."""

import numpy as np
import torch

from limner.world import build, models, video_captioner, video_models, weights
from limner.world.clips import Actor, Clip, scene_at
from limner.world.training import IGNORED

STAR = Actor("star", "blue", "leave", 1, 1, start=0.4, sideways=True)
RING = Actor("ring", "red", "change", 0, 0, start=0.4, later_colour="white")
BOTH = Clip("pink", (RING, STAR), 20)


def test_targets_are_in_the_order_of_shapes():
    """Star is shape 3, ring 5; motions: still, sideways, upright, border, change; that has no colour."""
    assert video_captioner._truth(BOTH) == [3, 2, 3, 5, IGNORED, 4, 1]
    assert video_captioner._truth(Clip("grey", (STAR,), 20)) == [3, 2, 3, 6, IGNORED, IGNORED, 0]


def test_a_frame_tells_what_is_in_it():
    assert video_captioner._still_truth(scene_at(BOTH, 0)) == [3, 2, IGNORED, 5, 0, IGNORED, 1]
    assert video_captioner._still_truth(scene_at(BOTH, 19)) == [5, 4, IGNORED, 6, IGNORED, IGNORED, 1]
    assert video_captioner._seen(scene_at(BOTH, 19)) == [("white", "ring")]


def test_frames_are_spread_and_within_the_clip():
    for frames in (16, 23, 32):
        chosen = video_captioner._spread(frames, np.random.default_rng(frames))
        assert len(chosen) == video_captioner.FRAMES
        assert 0 <= chosen[0] <= chosen[-1] < frames
        assert min(np.diff(chosen)) >= frames // 8


def test_the_loss_is_the_mean_cross_entropy_of_every_token():
    torch.manual_seed(0)
    model = video_models.captioner().eval()
    captions = ["a red circle visits", "a star"]
    queries = torch.randn(2, models.QUERIES, models.WIDTH)
    with torch.no_grad():
        together = video_models.loss(model, queries, captions)
        alone = [video_models.loss(model, queries[row : row + 1], captions[row : row + 1]) for row in (0, 1)]
    torch.testing.assert_close(together, (5 * alone[0] + 3 * alone[1]) / 8)


def test_the_stage_by_itself_takes_the_vit_that_is_shipped(tmp_path):
    assert build._take_vit(weights("itm").parent, tmp_path) == 0
    assert build.STAGES[build.VIDEO].after == ("vit",)
    assert (tmp_path / "vit" / "model.safetensors").is_file()
