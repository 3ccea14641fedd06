"""Learners that train a policy on any gymnasium environment of texts. They know nothing of `research_env`."""

import os

# OpenMP reads this once, when torch is first imported. Threads that spin while they wait make everything else on the
# machine five to ten times slower, themselves included.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
