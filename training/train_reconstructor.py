"""Train a reconstruction network with paired, unpaired or no labels.

accelerate launch training/train_reconstructor.py --help
"""

from ctxrecon.training import run_script
from ctxrecon.training.reconstructor import main

if __name__ == "__main__":
    run_script(main)
