"""Train a k-space sampler together with the reconstruction from its samples.

accelerate launch training/train_sampler.py --help
"""

from ctxrecon.training import run_script
from ctxrecon.training.masks import main

if __name__ == "__main__":
    run_script(main)
