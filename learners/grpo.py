"""GRPO as ReSearch trains with it (Chen et al., 2025, arXiv 2503.19470), on any gymnasium environment of texts.

Each step: take `prompts` questions, play `group_size` episodes of each, standardise the rewards within each group,
and descend on the clipped surrogate plus a k3 KL term, as a mean over all sampled tokens: one update for each of
`minibatches` parts of the step's groups, `epochs` times. Text from the environment is never trained on.

Where it departs from the paper: behaviour log-probabilities are the engine's own (they agree with the trainer's to
1e-6 in float32); the reward is whatever the environment gives, EM by default; the tiny policy starts from imitating
a random agent, because it is not a language model yet.

The credit and the loss are in `learners/algorithms/grpo.py`, a step in `learners/loop.py`, a run in `learners/run.py`.
"""

from __future__ import annotations

import sys

from learners.signals import quitting

if __name__ == "__main__":
    with quitting():
        from learners.run import main

    sys.exit(main())
