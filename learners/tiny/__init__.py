"""The tiny policy: made on the spot, and warm-started. This file imports nothing, so that `config` loads fast."""
