"""Train a network that reconstructs directly: with labels, with unpaired ones, or without.

accelerate launch training/train_reconstructor.py --help
"""

from ctxrecon.training import run_script
from ctxrecon.training.reconstructor import main

if __name__ == "__main__":
    run_script(main)
