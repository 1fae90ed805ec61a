"""Train a network that a fully sampled scan of another contrast helps to reconstruct.

accelerate launch training/train_cross_modal.py --help
"""

from ctxrecon.training import run_script
from ctxrecon.training.cross_modal import main

if __name__ == "__main__":
    run_script(main)
