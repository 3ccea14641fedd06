"""Gymnasium wrappers that change what an episode is worth. Any learner can use them, by `module:Class`."""
