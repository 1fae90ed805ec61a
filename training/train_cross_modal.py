"""Train a network that reconstructs with a fully sampled reference of another contrast.

accelerate launch training/train_cross_modal.py --help
"""

from ctxrecon.training import run_script
from ctxrecon.training.cross_modal import main

if __name__ == "__main__":
    run_script(main)
