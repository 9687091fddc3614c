"""The page of `limner serve --page`: captions of one or two captioners, what they earn, token by token."""
