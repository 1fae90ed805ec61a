"""Train a small CLIP on pairs of phantom image and prompt; its text encoder conditions the prior.

accelerate launch training/train_clip.py --help
"""

from ctxrecon.training import run_script
from ctxrecon.training.clip import main

if __name__ == "__main__":
    run_script(main)
