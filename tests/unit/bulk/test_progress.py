from limner.bulk.progress import Progress


def test_rate_leaves_the_start_out_and_cost_is_that_of_what_is_left():
    progress = Progress("captions.jsonl", total=1000, done=100, price=(0.5, 2.0))
    progress.advance(50, rejected=0, tokens=(5000, 500))
    progress.advance(50, rejected=1, tokens=(10_000, 1000))
    assert progress.line(5.0) == (
        "captions.jsonl: 200 of 1,000, 10.0/s, about 0:01:20 left"
        "; about 80,000 tokens to be read and 8,000 to be written, which cost 0.06"
    )
    bare = Progress("captions.jsonl", total=10, done=0)
    bare.advance(4, rejected=0)
    bare.advance(4, rejected=0)
    assert bare.line(2.0) == "captions.jsonl: 8 of 10, 2.0/s, about 0:00:01 left"
